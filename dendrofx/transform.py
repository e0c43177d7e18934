"""`transform`: from a trained model to one whose rows take the way they need.

capture -> drop dead rows -> find sites -> fit light branches and gates -> choose -> rewrite -> calibrate -> decide
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor, fx, nn

from dendrofx.calibration import Calibration
from dendrofx.calling import CALL
from dendrofx.capture import capture, is_routed
from dendrofx.dead_rows import drop_dead_rows
from dendrofx.errors import InputError
from dendrofx.explore import Options
from dendrofx.find_sites import find_sites
from dendrofx.fingerprint import model_fingerprint
from dendrofx.finish import finish
from dendrofx.gates import GateForm
from dendrofx.inputs import Inputs
from dendrofx.light import LightForm
from dendrofx.module import RoutedModule
from dendrofx.pipeline import Pipeline
from dendrofx.plan import DeadRowsPlan, Plan
from dendrofx.plan_file import check_origin, here
from dendrofx.replay import replay
from dendrofx.show import first_line
from dendrofx.sites import Selector
from dendrofx.stopwatch import Stopwatch


def transform(
    model: nn.Module,
    example_inputs: Any = None,  # noqa: ANN401  (a tensor, tuple or dict: checked by Inputs.of)
    *,
    calibration: Iterable[Any] | None = None,
    max_deviation: float = 0.01,
    dead_rows: str | None = None,
    sites: Selector = None,
    light: LightForm | Sequence[LightForm] | None = None,
    gate: GateForm | None = None,
    full: LightForm | None = None,
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
        max_deviation: budget for the mean over samples of the relative L2 distance from the original's output. 0 approximates
            nothing: what remains are dead rows and exact forms of the Linears.
        dead_rows: the input, [batch, tokens], that says which rows are padding and need nothing: its name where zeros mark them
            (`"attention_mask"`), after `~` where they are marked by ones (`"~src_key_padding_mask"`). Rows that are not dead
            keep their outputs to rounding; dead positions of outputs that have them become zero. Needs inputs to check
            on: `example_inputs` or `calibration`.
        sites: which sites may be routed: names, patterns such as `"blocks.*"`, or a predicate on `Site`; all by default.
        light: a light form, or several to choose from; a ladder of them by default.
        gate: a gate form; by default each site takes the one that costs least, its skill and its own time counted.
        full: a form for the full branch instead of the original block. With `Prepacked()` it is exact; with an approximation
            the original never runs, and tolerance 0 no longer computes the original. By default the faster of the
            block and `Prepacked()`.
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
    _check(model, max_deviation, light, gate, seed)
    _check_dead_rows(dead_rows)
    sizes = _check_tuning(full, batch_sizes, min_speedup, tune_seconds)
    if redecide and plan is None:
        raise InputError("redecide=True decides a plan anew: pass plan=")
    if plan is not None and not isinstance(plan, Plan):
        raise InputError(f"plan must be a dendrofx.Plan, such as Plan.load('plan.json') gives, got {plan!r}")
    if plan is not None and plan.origin is not None:
        seed = plan.origin.seed
    data = None if calibration is None else Calibration.read(calibration, seed)
    given = [] if example_inputs is None else [Inputs.of(example_inputs)]
    kinds = [*given, *_one_of_each_kind(data)]
    for inputs in kinds:
        _try(model, inputs)
    example = kinds[0] if kinds else None
    if plan is not None:
        dead_rows = None if plan.dead_rows is None else plan.dead_rows.mask
    if dead_rows is not None and example is None:
        raise InputError(f"dead_rows={dead_rows!r} is verified on inputs: pass example_inputs= or calibration=")
    others = [] if data is None else [*data.fit, *data.gate, *data.choose, *data.walk]
    captured = capture(model, example, dead_rows is not None, others)
    if (form := captured.meta.get(CALL)) is not None:  # from here on, inputs are the graph's: tensors by name
        data = None if data is None else data.map(form.plain)
        example = None if example is None else form.plain(example)
    prints = model_fingerprint(model), None if data is None else data.fingerprint
    if plan is not None:
        check_origin(plan, *prints, redecide)
        if not redecide:
            return replay(captured, data, plan, seed, example)
        assert plan.origin is not None
        max_deviation, sizes, min_speedup = plan.max_deviation, plan.origin.batch_sizes, plan.origin.min_speedup
    lights = [light] if isinstance(light, LightForm) else None if light is None else list(light)
    exact = dead_rows is not None or max_deviation == 0
    options = Options(max_deviation, lights, gate, decide, seed, full, sizes, min_speedup, exact)
    timer = Stopwatch(tune_seconds) if decide and tune_seconds > 0 else None
    run, module, dead = _decided(captured, dead_rows, data, options, timer, example, sites)
    return finish(module, run, example, here(*prints, seed, run.tuning.sizes, min_speedup), dead)


def _decided(
    captured: fx.GraphModule,
    dead_rows: str | None,
    data: Calibration | None,
    options: Options,
    timer: Stopwatch | None,
    example: Inputs | None,
    sites: Selector,
) -> tuple[Pipeline, RoutedModule, DeadRowsPlan | None]:
    """The pipeline's result; where live rows do not win on the whole model, that of the graph with all rows."""
    if dead_rows is None:
        run = Pipeline(captured, find_sites(captured).select(sites), data, options, timer, example)
        return run, run.run(), None
    assert example is not None
    live, report = drop_dead_rows(captured, dead_rows, example)
    share = None if data is None else data.live_share(report.mask)
    run = Pipeline(live, find_sites(live).select(sites), data, options, timer, example, original=captured)
    module = run.run()
    if run.lost is None:
        return run, module, DeadRowsPlan(dead_rows, "live", report.describe(share))
    refused = DeadRowsPlan(dead_rows, "refused", f"on live rows alone the model did not win: {run.lost}")
    run = Pipeline(captured, find_sites(captured).select(sites), data, options, timer, example)
    return run, run.run(), refused


def _check_tuning(
    full: object, batch_sizes: object, min_speedup: object, tune_seconds: object
) -> tuple[int, ...] | None:
    """The batch sizes, ascending."""
    if not (full is None or isinstance(full, LightForm)):
        raise InputError(
            f"full must be a light form such as dendrofx.Prepacked() or dendrofx.Pruned(energy=1.0), got {full!r}"
        )
    if not _number(min_speedup) or not min_speedup > 0:
        raise InputError(f"min_speedup must be a number above 0, got {min_speedup!r}; 1.05 is five percent faster")
    if not _number(tune_seconds) or not tune_seconds >= 0:
        raise InputError(f"tune_seconds must be a number of at least 0, got {tune_seconds!r}")
    if batch_sizes is None:
        return None
    sizes = list(batch_sizes) if isinstance(batch_sizes, Iterable) and not isinstance(batch_sizes, str) else []
    if not sizes or not all(isinstance(b, int) and not isinstance(b, bool) and b >= 1 for b in sizes):
        raise InputError(f"batch_sizes must be whole numbers of at least 1, such as [1, 256], got {batch_sizes!r}")
    return tuple(sorted(set(sizes)))


def _check_dead_rows(dead_rows: object) -> None:
    named = isinstance(dead_rows, str) and dead_rows.removeprefix("~").isidentifier()
    if dead_rows is not None and not named:
        raise InputError(
            "dead_rows names the mask input, such as 'attention_mask', or '~padding_mask' where ones mark padding,"
            f" got {dead_rows!r}"
        )


def _number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check(model: nn.Module, max_deviation: float, light: object, gate: object, seed: object) -> None:
    if is_routed(model):
        raise InputError("the model already holds routed sites: transform the original model")
    if not (_number(max_deviation) and max_deviation >= 0):
        raise InputError(f"max_deviation must be a number of at least 0, got {max_deviation!r}; 0.01 is one percent")
    forms = [light] if isinstance(light, LightForm) else light
    several = isinstance(forms, Sequence) and len(forms) > 0 and all(isinstance(f, LightForm) for f in forms)
    if light is not None and not several:
        raise InputError(f"light must be a light form such as dendrofx.LowRank(rank=32), or several, got {light!r}")
    if not (gate is None or isinstance(gate, GateForm)):
        raise InputError(f"gate must be a gate form such as dendrofx.LearnedGate(), got {gate!r}")
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        raise InputError(f"seed must be a whole number from 0 to 2^63 - 1, got {seed!r}")


def _one_of_each_kind(data: Calibration | None) -> list[Inputs]:
    """The first calibration batch of every width and dtype."""
    kinds: dict[str, Inputs] = {}
    for batch in [] if data is None else [*data.fit, *data.gate, *data.choose, *data.walk]:
        kinds.setdefault(str([_kind(t) for t in batch.tensors]), batch)
    return list(kinds.values())


def _kind(t: Tensor) -> tuple[object, ...]:
    """Dtype and width; of ids and masks, whose second size counts tokens, the number of axes."""
    return t.dtype, t.shape[1:] if t.is_floating_point() else t.dim()


@torch.no_grad()
def _try(model: nn.Module, example: Inputs) -> None:
    """Run the model once, so that inputs it rejects are reported as inputs."""
    if not isinstance(model, nn.Module) or any(m.training for m in model.modules()):
        return
    if any(t.device.type != "cpu" for t in [*model.parameters(), *model.buffers()]):
        return  # capture names the tensor
    try:
        example.call(model)
    except Exception as error:
        raise InputError(
            f"{type(model).__name__} rejects the inputs {example}: {first_line(error)}. Pass batches as the model"
            " is called: a tensor, a tuple of positional inputs or a dict of named ones, with the width and dtype it was trained on"
        ) from error
