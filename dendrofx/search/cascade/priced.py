"""Every setting of a cascade, priced: light models with gates and full models, at every threshold."""

from __future__ import annotations

from dataclasses import replace

import torch

from dendrofx.gates import AlwaysLight, GateForm, LearnedGate, MarginGate
from dendrofx.guarantee.settings import Setting
from dendrofx.search.cascade.lights import LightModel
from dendrofx.search.cascade.models import ModelSpace
from dendrofx.search.cascade.outputs import Sets
from dendrofx.search.cascade.search import Gated, gated, settings
from dendrofx.search.cascade.timed import call_times
from dendrofx.search.timer import Timer


@torch.no_grad()
def model_settings(space: ModelSpace, timer: Timer | None) -> list[Setting]:
    """Return every light model with every gate, at every threshold: made without a look at the test samples' losses."""
    pairs, most = (*_pairs(space), *_chained(space)), space.request.max_sample_deviation
    if not pairs:
        return []
    times = call_times(space, timer, pairs)
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
