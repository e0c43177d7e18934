"""Every setting of a cascade, priced: light models with gates and full models, at every threshold."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from dendrofx.gates import GateForm, LearnedGate, MarginGate
from dendrofx.guarantee.settings import Setting
from dendrofx.search.cascade.lights import LightModel
from dendrofx.search.cascade.models import ModelSpace
from dendrofx.search.cascade.search import CallTimes, Gated, counted_times, gated, settings
from dendrofx.search.timer import Timer
from dendrofx.search.verify import timing_batches
from dendrofx.values.inputs import Inputs


@torch.no_grad()
def model_settings(space: ModelSpace, timer: Timer | None) -> list[Setting]:
    """Return every light model with every gate, at every threshold: made without a look at the test samples' losses."""
    times = _times(space, [light for light, _ in space.lights], timer)
    return [s for pair in _pairs(space) for s in settings(pair, times)]


def _pairs(space: ModelSpace) -> list[Gated]:
    """Return every light model with every gate that fits, and every full model that it goes with."""
    request, budget = space.request, space.budget
    gates: list[GateForm] = [request.gate] if request.gate is not None else [LearnedGate()]
    if request.gate is None and budget.is_decision:
        gates.insert(0, MarginGate())
    fulls = {full.name: outputs for full, outputs in space.fulls}
    return [
        pair
        for light, outputs in space.lights
        for form in gates
        for pair in gated(light, form, outputs, fulls, space.reference, budget, request.seed)
    ]


def _times(space: ModelSpace, lights: Sequence[LightModel], timer: Timer | None) -> list[CallTimes]:
    """Return what calls cost, timed where there is a timer."""
    if timer is None:
        return counted_times(lights, {full.name: full.work for full, _ in space.fulls}, space.sizes)
    original = space.proved.subject.original
    found = []
    for size in space.sizes:
        counts = sorted({n for n in (1, size // 16, size // 4, size) if n >= 1})
        batches = {n: timing_batches(space.proved.searched, n) for n in counts}
        calls: dict[tuple[str, ...], tuple[nn.Module, Sequence[Inputs]]] = {("original", ""): (original, batches[size])}
        calls.update({("light", light.name): (light.module, batches[size]) for light in lights})
        calls.update(
            {("full", full.name, str(n)): (full.module, batches[n]) for full, _ in space.fulls for n in counts}
        )
        for name, rest in [(light.name, light.rest) for light in lights if light.rest is not None]:
            entered = {n: [rest.entered(b) for b in batches[n]] for n in counts}
            calls.update({("full", name, str(n)): (rest.module, entered[n]) for n in counts})
        ms = timer.calls(calls)
        base = ms["original", ""]
        full: dict[str, list[tuple[int, float]]] = {}
        for _, name, n in [key for key in calls if key[0] == "full"]:
            full.setdefault(name, []).append((int(n), ms["full", name, n] / base))
        lit = {light.name: ms["light", light.name] / base for light in lights}
        found.append(CallTimes(size, lit, {name: tuple(known) for name, known in full.items()}))
    return found
