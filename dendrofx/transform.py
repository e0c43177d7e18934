"""`transform`: from a trained model to one whose rows take the way they need.

capture -> drop dead rows -> find sites -> fit light branches and gates -> choose -> rewrite -> calibrate -> decide -> certify
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from torch import nn

from dendrofx.errors import InputError
from dendrofx.gates import GateForm, UserGate
from dendrofx.graph.capture import capture_call, check_sizes, remember
from dendrofx.graph.capture.check import check_model
from dendrofx.graph.capture.prepare import unwrapped
from dendrofx.graph.given import Given
from dendrofx.graph.sites import Selector
from dendrofx.guarantee.budget import Budget, check_redecided
from dendrofx.light import LightForm
from dendrofx.light.routed import Routed
from dendrofx.machine.memory import part
from dendrofx.plan.origin import check_origin
from dendrofx.plan.plan import Plan
from dendrofx.replay import replay
from dendrofx.request import check, check_budget, check_dead_rows, check_tuning, split_forms, split_output
from dendrofx.rewriting.module import RoutedModule
from dendrofx.search.decide import Asked, decide_block, decide_model
from dendrofx.search.explore import Options
from dendrofx.search.stopwatch import Stopwatch
from dendrofx.values.calibration import Calibration
from dendrofx.values.fingerprint import model_fingerprint
from dendrofx.values.numerics import plain_numerics


@plain_numerics()
def transform(
    model: nn.Module,
    example_inputs: Any = None,  # noqa: ANN401  (a tensor, tuple or dict: checked by Inputs.of)
    *,
    calibration: Iterable[Any] | None = None,
    max_deviation: float | None = None,
    budget: Budget | None = None,
    output: str | int | Sequence[str | int] | None = None,
    scope: Literal["block", "model"] = "block",
    dead_rows: str | None = None,
    sites: Selector = None,
    light: LightForm | Routed | Sequence[LightForm | Routed] | None = None,
    gate: GateForm | nn.Module | None = None,
    full: LightForm | Routed | None = None,
    batch_sizes: Sequence[int] | None = None,
    min_speedup: float = 1.05,
    tune_seconds: float = 60.0,
    decide: bool = True,
    plan: Plan | None = None,
    redecide: bool = False,
    seed: int = 0,
) -> RoutedModule:
    """Rewrite a trained model so that easy rows skip most of its arithmetic.

    Args:
        model: in eval mode, on the CPU; never modified.
        example_inputs: one batch (tensor, tuple or dict) to verify the captured graph on; by default the first
            calibration batch.
        calibration: any iterable of batches, read once. With it, light branches and gates are fitted, chosen and
            calibrated on four disjoint parts of it. Without it, only light branches and gates that need no data are
            used, and each site's tolerance is `max_deviation`, a bound on the site's own output.
        max_deviation: budget for the mean over samples of the relative L2 distance from the original's output, 0.01 by default;
            of several outputs, for each.
            0 approximates nothing: what remains are dead rows and exact forms of the Linears.
        budget: instead, a budget in other terms that is certified: kept on unseen samples with the confidence that it states.
            Half of the calibration is set aside to test it, and the certificate is `plan.certificate`; where it cannot
            be shown, nothing is approximated and `plan.refusal` says why. All that was tested is in `front`.
        output: which output of the model the budget is about, by name (`"action"`, `"past.0"`) or place, or several of them. It
            holds for each of them; by default for every floating-point output. Each needs a value per sample on its first
            axis; the others, such as a loss, are listed in the plan as not covered.
        scope: what is routed. "block": rows of each block. "model": samples of the whole model, which run a light model
            and then, where its decision is in doubt, the original. It needs `budget`, and samples that do not depend on
            each other.
        dead_rows: the input, [batch, tokens], that says which rows are padding and need nothing: its name where zeros mark them
            (`"attention_mask"`), after `~` where they are marked by ones (`"~src_key_padding_mask"`). Rows that are not dead
            keep their outputs to rounding; dead positions of outputs that have them become zero. Needs inputs to check
            on: `example_inputs` or `calibration`.
        sites: which sites may be routed: names, patterns such as `"blocks.*"`, or a predicate on `Site`; all by default.
        light: a light form, or several to choose from; a ladder of them by default. At `scope="model"` also `Routed(0.05)`: the
            model with routed blocks.
        gate: a gate form; by default each site takes the one that costs least, its skill and its own time counted. Or
            any module of yours that maps rows f32[N, in] to scores f32[N]: see `UserGate`.
        full: a form for the full branch instead of the original block. With `Prepacked()` it is exact; with an approximation
            the original never runs, and tolerance 0 no longer computes the original. By default the faster of the
            block and `Prepacked()`. At `scope="model"` also `Routed(0.001)`.
        batch_sizes: samples per call; the rewritten model must win at each. By default those seen in calibration
            (smallest, middle and largest).
        min_speedup: how much faster than the scripted original the scripted result must be; else the captured,
            unrewritten module is returned.
        tune_seconds: time for timing the candidates' parts. What was not timed by then, or before Ctrl-C, is not chosen.
            0 times nothing: the decision is by counted multiply-adds, and the same on every machine.
        decide: False routes every site that can be routed, even where that costs time, and times nothing.
        plan: a plan to reproduce, from `Plan.load` or another module's `.plan`: the same branches are fitted to the same
            calibration data, and nothing is timed or decided. Of the other options only `example_inputs` and
            `calibration` are used.
        redecide: with a plan made on another machine or version: decide anew, for its budget, batch sizes and seed.
        seed: of every random choice.

    Returns:
        A module that is called exactly as the model was. Its `plan` lists every candidate site, routed or refused, and
        why; `forward_counted` also returns what was executed. When nothing pays it is the captured, unrewritten graph.

    Raises:
        InputError: an argument that cannot be used, quoted, with the next step; or dead rows reach an output, which is named.
        CaptureError: the model cannot be traced, or its graph computes something else.
        PlanError: a plan for another model, other data, another machine or another version.

    Example:
        >>> routed = dendrofx.transform(model, calibration=batches, max_deviation=0.01)
        >>> print(routed.plan)
        >>> torch.jit.save(dendrofx.script(routed), "model.pt")
    """
    model, wrapper = unwrapped(model)
    check_model(model)
    check(model, max_deviation, light, gate, seed)
    check_dead_rows(dead_rows)
    check_budget(budget, scope, max_deviation, calibration, plan)
    named, budget = split_output(output, budget, calibration)
    sizes = check_tuning(full, batch_sizes, min_speedup, tune_seconds)
    lights, light_models, full, full_model = split_forms(light, full, scope)
    if redecide and plan is None:
        raise InputError("redecide=True decides a plan anew: pass plan=")
    if plan is not None and not isinstance(plan, Plan):
        raise InputError(f"plan must be a dendrofx.Plan, such as Plan.load('plan.json') gives, got {plan!r}")
    if plan is not None and plan.origin is not None:
        seed = plan.origin.seed
    tested = budget is not None if plan is None else bool(plan.budget)
    given = Given.read(model, example_inputs, calibration)
    example = given.example
    data = None if given.batches is None else Calibration.cut(given.batches, seed, tested)
    if plan is not None:
        dead_rows = None if plan.dead_rows is None else plan.dead_rows.mask
        scope = "block" if plan.cascade is None else "model"
    if dead_rows is not None and example is None:
        raise InputError(f"dead_rows={dead_rows!r} is verified on inputs: pass example_inputs= or calibration=")
    others = [] if data is None else [*data.fit, *data.gate, *data.choose, *data.walk]
    captured = capture_call(model, given.form, example, dead_rows is not None or scope == "model", others, shared=True)
    remember(captured, model, wrapper)
    for number, batch in enumerate(given.batches or []):
        check_sizes(captured, batch, number)
    prints = model_fingerprint(model), None if data is None else data.fingerprint
    gates = UserGate(gate) if isinstance(gate, nn.Module) else gate
    if plan is not None:
        check_origin(plan.origin, *prints, redecide)
        if not redecide:
            return part(replay(captured, data, plan, seed, example, budget, gates, named), model)
        budget, named = check_redecided(plan, budget), tuple(plan.outputs) or None
        assert plan.origin is not None
        max_deviation, sizes, min_speedup = plan.max_deviation, plan.origin.batch_sizes, plan.origin.min_speedup
    if max_deviation is None:
        max_deviation = 0.01 if budget is None else budget.deviation
    exact = dead_rows is not None or max_deviation == 0
    options = Options(
        max_deviation,
        lights,
        gates,
        decide,
        seed,
        full,
        sizes,
        min_speedup,
        exact,
        budget,
        light_models,
        full_model,
        named,
    )
    timer = Stopwatch(tune_seconds, min_speedup) if decide and tune_seconds > 0 else None
    asked = Asked(dead_rows, sites, budget, *prints)
    run = decide_model if scope == "model" else decide_block
    return part(run(captured, data, options, timer, example, asked), model)
