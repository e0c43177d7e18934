"""Every setting of a cascade, priced: light models with gates and full models, at every threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from dendrofx.gates import AlwaysLight, GateForm, LearnedGate, MarginGate
from dendrofx.guarantee.settings import Setting
from dendrofx.search.cascade.costs import CallTimes, counted_times
from dendrofx.search.cascade.lights import LightModel, Rest
from dendrofx.search.cascade.models import ModelSpace
from dendrofx.search.cascade.outputs import Sets
from dendrofx.search.cascade.recipes import cascade_recipe
from dendrofx.search.cascade.search import LARGEST, Gated, gated, settings
from dendrofx.search.timer import Part, Timer
from dendrofx.search.verify import timing_batches
from dendrofx.values.counts import CASCADE
from dendrofx.values.inputs import Inputs

Calls = dict[Part, tuple[nn.Module, Sequence[Inputs]]]


@torch.no_grad()
def model_settings(space: ModelSpace, timer: Timer | None) -> list[Setting]:
    """Return every light model with every gate, at every threshold: made without a look at the test samples' losses."""
    pairs, most = (*_pairs(space), *_chained(space)), space.request.max_sample_deviation
    if not pairs:
        return []
    times = _times(space, timer, pairs)
    return [s for pair in pairs for s in settings(pair, times, most)]


def _pairs(space: ModelSpace) -> list[Gated]:
    """Return every light model with every gate that fits and every full model that it goes with; and alone."""
    found = [
        pair
        for light, outputs in space.lights
        for form in _gates(space)
        for pair in _gated(space, light, outputs, form)
    ]
    if space.request.scope == "auto" and space.request.gate is None:  # who asks for a cascade gets its gate
        whole = [known for known in space.lights if known[0].exit is None]  # a head for all samples is another model
        found += [_gated(space, light, outputs, AlwaysLight())[0] for light, outputs in whole]
    return found


def _chained(space: ModelSpace) -> list[Gated]:
    """Return two exits in a row, with every gate that fits at both."""
    found: list[Gated] = []
    for chain in space.chains:
        for form in _gates(space):
            one, two = (
                _gated(space, light, outputs, form)
                for light, outputs in ((chain.first, chain.first_outputs), (chain.then, chain.outputs))
            )
            found += [replace(a, later=b) for a, b in zip(one, two, strict=True)]
    return found


def _gated(space: ModelSpace, light: LightModel, outputs: Sets, form: GateForm) -> list[Gated]:
    fulls = {full.name: outputs for full, outputs in space.fulls}
    return gated(light, form, outputs, fulls, space.reference, space.budget, space.request.seed)


def _gates(space: ModelSpace) -> list[GateForm]:
    """Return the gates to try."""
    if space.request.gate is not None:
        return [space.request.gate]
    return [MarginGate(), LearnedGate()] if space.budget.is_decision else [LearnedGate()]


def _times(space: ModelSpace, timer: Timer | None, pairs: Sequence[Gated]) -> list[CallTimes]:
    """Return what calls cost, timed where there is a timer; what gates cost on cascades of no sample in doubt."""
    later = [chain.then for chain in space.chains]
    lights = list(
        {x.name: x for x in [*(light for light, _ in space.lights), *(c.first for c in space.chains)]}.values()
    )
    if timer is not None and timer.expired:
        timer.ran_out("calls of whole models were counted")
    if timer is None or timer.expired:
        return counted_times(lights, later, {full.name: full.work for full, _ in space.fulls}, space.sizes)
    original, found = space.proved.subject.original, []
    cheapest = {str(p.form): replace(p, later=None) for p in sorted(pairs, key=lambda pair: -pair.light.work)}
    easy = {form: cascade_recipe(space, pair).build({CASCADE: LARGEST}) for form, pair in cheapest.items()}
    for size in space.sizes:
        counts = sorted({n for n in (1, size // 16, size // 4, size) if n >= 1})
        batches = {n: timing_batches(space.proved.searched, n) for n in counts}
        calls: Calls = {("original", ""): (original, batches[size])}
        calls.update({("easy", form): (module, batches[size]) for form, module in easy.items()})
        calls.update({("light", light.name): (light.module, batches[size]) for light in lights})
        calls.update(
            {("full", full.name, str(n)): (full.module, batches[n]) for full, _ in space.fulls for n in counts}
        )
        for light in lights:
            calls.update(_rests(light.name, light.rest, batches))
        for chain in space.chains:
            assert chain.first.rest is not None
            entered = {n: [chain.first.rest.entered(b) for b in batches[n]] for n in counts}
            calls.update({("full", f"to {chain.then.name}", str(n)): (chain.then.module, entered[n]) for n in counts})
            calls.update(_rests(chain.then.name, chain.then.rest, entered))
        ms = timer.calls(calls)
        base = ms["original", ""]
        full: dict[str, list[tuple[int, float]]] = {}
        for _, name, n in [key for key in calls if key[0] == "full"]:
            full.setdefault(name, []).append((int(n), ms["full", name, n] / base))
        lit = {light.name: ms["light", light.name] / base for light in lights}
        gate = {form: max(ms["easy", form] / base - lit[p.light.name], 0.0) for form, p in cheapest.items()}
        found.append(CallTimes(size, lit, {name: tuple(known) for name, known in full.items()}, gate))
    return found


def _rests(name: str, rest: Rest | None, batches: Mapping[int, Sequence[Inputs]]) -> Calls:
    """Return the calls of what goes on behind an exit, on batches as they reach it."""
    if rest is None:
        return {}
    return {("full", name, str(n)): (rest.module, [rest.entered(b) for b in given]) for n, given in batches.items()}
