"""`transform`: from a trained model to one whose rows take the way they need.

    Request -> Subject -> Space -> Decision -> module

request    what is asked for, checked (`request/`)
subject    the captured graph, on live rows, its sites and its samples (`subject.py`)
search     what each site could be given, what that costs, and what keeps the budget; a plan says all that (`search/`, `replay.py`)
finish     the rewritten module, with its plan (`finish.py`)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import nn

from dendrofx.finish import finish
from dendrofx.gates import GateForm
from dendrofx.graph.capture.check import check_model
from dendrofx.graph.capture.prepare import unwrapped
from dendrofx.graph.sites import Selector
from dendrofx.guarantee.budget import Budget
from dendrofx.light import LightForm
from dendrofx.light.exits import Exit
from dendrofx.light.routed_blocks import RoutedBlocks
from dendrofx.machine.memory import unshare
from dendrofx.machine.stages import stage
from dendrofx.plan.origin import check_origin
from dendrofx.plan.plan import Plan
from dendrofx.replay import replay
from dendrofx.request import Options, Request
from dendrofx.request.old_spelling import accepts_old_spelling
from dendrofx.rewriting.module import RoutedModule
from dendrofx.scale.calibration import dealt_dataset, is_dataset
from dendrofx.search.decide_auto import decide_auto
from dendrofx.search.decide_blocks import decide_blocks
from dendrofx.search.decide_models import decide_models
from dendrofx.search.decision import Decision
from dendrofx.search.profiler import Profiler
from dendrofx.subject import Subject
from dendrofx.values.numerics import plain_numerics


@accepts_old_spelling
@plain_numerics()
def transform(
    model: nn.Module,
    example_inputs: Any = None,  # noqa: ANN401  (a tensor, tuple or dict: checked by Inputs.of)
    *,
    calibration: Any = None,  # noqa: ANN401  (an iterable of batches, a path or a Ray Dataset: checked when it is read)
    budget: float | Budget | str | None = None,
    max_sample_deviation: float | None = None,
    output: str | int | Sequence[str | int] | None = None,
    scope: Literal["auto", "block", "model"] = "auto",
    dead_rows: str | None = None,
    repeated_rows: bool | str | Sequence[str] = False,
    sites: Selector = None,
    light: LightForm | RoutedBlocks | Exit | Sequence[LightForm | RoutedBlocks | Exit] | None = None,
    gate: GateForm | nn.Module | Literal["optional"] | None = None,
    batch_sizes: Sequence[int] | None = None,
    plan: Plan | None = None,
    options: Options | None = None,
) -> RoutedModule:
    """Rewrite a trained model so that easy rows skip most of its arithmetic.

    Args:
        model: in eval mode, on the CPU; never modified.
        example_inputs: one batch (tensor, tuple or dict) to verify the captured graph on; by default the first
            calibration batch.
        calibration: any iterable of batches, read once. With it, light branches and gates are fitted, chosen and
            calibrated on four disjoint parts of it. Without it, only light branches and gates that need no data are
            used, and each site's tolerance is `budget`, a number, a bound on the site's own output. A Ray Dataset, or the path of
            Parquet files, may be larger than memory: see the guide to scaling out.
        budget: how far the output may be from the original's. A number is a mean over samples of the relative L2 distance, 0.01
            by default; of several outputs, for each; 0 approximates nothing: what remains are dead rows and exact forms of the
            Linears. A `Budget`, or its text such as "flip:0.01:0.95", is in other terms and certified: kept on unseen
            samples with the confidence that it states. Half of the calibration is set aside to test it, and the certificate
            is `plan.certificate`; where it cannot be shown, nothing is approximated and `plan.refusal` says why. All that
            was shown is in `settings`.
        max_sample_deviation: beside any budget, what no calibration sample may deviate by, as a relative L2 distance: 0.2 is
            twenty percent. It is a condition on the samples that tolerances are set on, with a `Budget` also on those that test
            it, and no certificate for others; the plan says the largest deviation that was seen (`plan.tail`). With it rows of
            blocks are routed, not samples of models.
        output: which output of the model the budget is about, by name (`"action"`, `"past.0"`) or place, or several of them. It
            holds for each of them; by default for every floating-point output. Each needs a value per sample on its first
            axis; the others, such as a loss, are listed in the plan as not covered.
        scope: what is routed. "block": rows of each block. "model": samples of the whole model, which run a light model, or leave
            the model early, and then, where their decision is in doubt, the original; it needs a `Budget`, and samples that do not
            depend on each other. "auto": with a `Budget` both are searched, and the fastest certified one is taken; else "block".
        dead_rows: the input, [batch, tokens], that says which rows are padding and need nothing: its name where zeros mark them
            (`"attention_mask"`), after `~` where they are marked by ones (`"~src_key_padding_mask"`). Rows that are not dead
            keep their outputs to rounding; dead positions of outputs that have them become zero. Needs inputs to check
            on: `example_inputs` or `calibration`.
        repeated_rows: a row that equals the one before it takes that row's result: True looks for such rows in every input with one
            row per sample, a name or several in these alone (`"user"`; columns, where the model reads an input by columns, as
            `"x[:, 3:7]"`). What depends on repeated rows alone runs on the distinct ones and is expanded where other rows join; a
            Linear of joined values is split by columns. Outputs are equal to rounding. Which rows repeat is found in every call.
            Needs inputs to check on, in which rows repeat as they will.
        sites: which sites may be routed: names, patterns such as `"blocks.*"`, or a predicate on `Site`; all by default.
        light: a light form, or several to choose from; all that are known by default. For whole models also
            `RoutedBlocks(0.05)`, the model with routed blocks, and `Exit()`, the beginning of the model with a head.
        gate: a gate form; by default each site takes the one that costs least, its skill and its own time counted. Or
            any module of yours that maps rows f32[N, in] to scores f32[N]: see `UserGate`. With "optional" a site may go
            without gate and full branch, where one light form on every row keeps the budget and is faster; then rows that are
            not finite raise.
        batch_sizes: samples per call; the rewritten model must win at each. By default those seen in calibration
            (smallest, middle and largest).
        plan: a plan to reproduce, from `Plan.load` or another module's `.plan`: the same branches are fitted to the same
            calibration data, and nothing is timed or decided. Of the other options only `example_inputs` and
            `calibration` are used.
        options: rare ones, such as the time for tuning and the seed: see `Options`.

    Returns:
        A module that is called exactly as the model was. Its `plan` lists every candidate site, routed or refused, and
        why; `forward_counted` also returns what was executed. When nothing pays it is the captured, unrewritten graph.

    Raises:
        InputError: an argument that cannot be used, quoted, with the next step; or dead rows reach an output, which is named; or
            rows of an input that was named in `repeated_rows` are mixed, with the node that does.
        CaptureError: the model cannot be traced, or its graph computes something else.
        PlanError: a plan for another model, other data, another machine or another version.

    Example:
        >>> routed = dendrofx.transform(model, calibration=batches, budget=0.01)
        >>> print(routed.plan)
        >>> torch.jit.save(dendrofx.script(routed), "model.pt")
    """
    model, wrapper = unwrapped(model)
    check_model(model)
    options = Options() if options is None else options
    request = Request.of(
        model,
        calibration,
        plan,
        options,
        budget=budget,
        max_sample_deviation=max_sample_deviation,
        output=output,
        scope=scope,
        dead_rows=dead_rows,
        repeated_rows=repeated_rows,
        sites=sites,
        light=light,
        gate=gate,
        batch_sizes=batch_sizes,
    )
    certified = request.budget is not None if plan is None else bool(plan.budget)
    if is_dataset(calibration):
        calibration = dealt_dataset(calibration, model, request.seed, certified)
    with stage("the model was captured"):
        subject = Subject.of(model, wrapper, example_inputs, calibration, request, certified)
    if plan is not None:
        check_origin(
            plan.origin, subject.model, None if subject.data is None else subject.data.fingerprint, options.redecide
        )
    with stage("settings were searched"):
        decision = decided(subject, request) if plan is None or options.redecide else replay(subject, plan, request)
    with stage("the module was put together"):
        return unshare(finish(decision, subject.example), model)


def decided(subject: Subject, request: Request) -> Decision:
    """Decide how a model is rewritten."""
    timer = Profiler(request.tune_seconds, request.min_speedup) if request.tune_seconds > 0 else None
    subject = subject.without_rows(request)
    decide = {"auto": decide_auto, "block": decide_blocks, "model": decide_models}[request.scope]
    return decide(subject, request, timer)
