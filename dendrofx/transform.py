"""`transform`: from a trained model to one whose rows take the way they need.

capture -> find sites -> fit light branches and gates -> choose -> rewrite -> calibrate -> decide
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from dendrofx.calibration import Calibration
from dendrofx.capture import capture, is_routed
from dendrofx.errors import InputError, NotYetError
from dendrofx.explore import Options
from dendrofx.find_sites import find_sites
from dendrofx.finish import finish
from dendrofx.gates import GateForm
from dendrofx.inputs import Inputs
from dendrofx.light import LightForm
from dendrofx.module import RoutedModule
from dendrofx.pipeline import Pipeline
from dendrofx.sites import Selector


def transform(
    model: nn.Module,
    example_inputs: Any = None,  # noqa: ANN401  (a tensor, tuple or dict: checked by Inputs.of)
    *,
    calibration: Iterable[Any] | None = None,
    max_deviation: float = 0.01,
    sites: Selector = None,
    light: LightForm | Sequence[LightForm] | None = None,
    gate: GateForm | None = None,
    full: LightForm | None = None,
    batch_sizes: Sequence[int] | None = None,
    decide: bool = True,
    plan: object | None = None,
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
        max_deviation: budget for the mean over samples of the relative L2 distance from the original's output.
        sites: which sites may be routed: names, patterns such as `"blocks.*"`, or a predicate on `Site`; all by default.
        light: a light form, or several to choose from; a ladder of them by default.
        gate: a gate form; by default each site takes the one with the best measured skill.
        full: not yet: another form for the full branch.
        batch_sizes: not yet: the row counts at which measured cost decides.
        decide: False routes every site that can be routed, even where that costs multiply-adds.
        plan: not yet: a plan to reproduce.
        seed: of every random choice.

    Returns:
        A module that is called exactly as the model was. Its `plan` lists every candidate site, routed or refused, and
        why; `forward_counted` also returns what was executed. When nothing pays it is the captured, unrewritten graph.

    Raises:
        InputError: an argument that cannot be used, quoted, with the next step.
        CaptureError: the model cannot be traced, or its graph computes something else.
        NotYetError: an option this version does not have.

    Example:
        >>> routed = dendrofx.transform(model, calibration=batches, max_deviation=0.01)
        >>> print(routed.plan)
        >>> torch.jit.save(dendrofx.script(routed), "model.pt")
    """
    _check(model, max_deviation, light, gate, seed)
    for name, value in (("full", full), ("batch_sizes", batch_sizes), ("plan", plan)):
        if value is not None:
            raise NotYetError(f"{name}= is not in this version: leave it out")
    data = None if calibration is None else Calibration.read(calibration, seed)
    given = [] if example_inputs is None else [Inputs.of(example_inputs)]
    kinds = [*given, *_one_of_each_kind(data)]
    for inputs in kinds:
        _try(model, inputs)
    example = kinds[0] if kinds else None
    captured = capture(model, example)
    found = find_sites(captured).select(sites)
    lights = [light] if isinstance(light, LightForm) else None if light is None else list(light)
    options = Options(max_deviation, lights, gate, decide, seed)
    run = Pipeline(captured, found, data, options)
    return finish(run.run(), run, example)


def _check(model: nn.Module, max_deviation: float, light: object, gate: object, seed: object) -> None:
    if is_routed(model):
        raise InputError("the model already holds routed sites: transform the original model")
    number = isinstance(max_deviation, int | float) and not isinstance(max_deviation, bool)
    if not (number and math.isfinite(max_deviation) and max_deviation > 0):
        raise InputError(f"max_deviation must be a number above 0, got {max_deviation!r}; 0.01 is one percent")
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
        kinds.setdefault(str([(t.dtype, t.shape[1:]) for t in batch.tensors]), batch)
    return list(kinds.values())


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
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{type(model).__name__} rejects the inputs {example}: {first}. Pass batches as the model is called: a tensor,"
            " a tuple of positional inputs or a dict of named ones, with the width and dtype it was trained on"
        ) from error
