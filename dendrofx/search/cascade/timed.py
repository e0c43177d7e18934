"""What calls of a cascade's models, and of whole cascades, take in turns; counted where there is no timer or its time is up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from dendrofx.guarantee.settings import Setting
from dendrofx.runtime.control_scores import FirstScore
from dendrofx.search.cascade.costs import CallTimes, counted_times
from dendrofx.search.cascade.lights import LightModel, Rest
from dendrofx.search.cascade.models import ModelSpace
from dendrofx.search.cascade.recipes import cascade_recipe
from dendrofx.search.cascade.search import LARGEST, Gated
from dendrofx.search.timer import Part, Timer
from dendrofx.search.verify import timing_batches
from dendrofx.values.counts import CASCADE
from dendrofx.values.inputs import Inputs

# Accepted settings that are timed as they will run.
MOST_TIMED = 5
Calls = dict[Part, tuple[nn.Module, Sequence[Inputs]]]


def call_times(space: ModelSpace, timer: Timer | None, pairs: Sequence[Gated]) -> list[CallTimes]:
    """Return what calls cost at every batch size.

    Args:
        space: the models.
        timer: what times; None counts.
        pairs: light models with gates, of which each gate is timed.
    """
    lights = {x.name: x for x in [*(light for light, _ in space.lights), *(c.first for c in space.chains)]}
    if timer is not None and timer.expired:
        timer.ran_out("calls of whole models were counted")
    if timer is None or timer.expired:
        later = [chain.then for chain in space.chains]
        works = {full.name: full.work for full, _ in space.fulls}
        return counted_times(list(lights.values()), later, works, space.sizes)
    doubtful = {size: sorted({n for n in (1, size // 16, size // 4, size) if n >= 1}) for size in space.sizes}
    nets = _Nets.of(space, pairs, {n for counts in doubtful.values() for n in counts})
    found = []
    for size, counts in doubtful.items():
        batches = {n: timing_batches(space.proved.searched, n) for n in counts}
        calls: Calls = {
            ("original", ""): (space.proved.subject.original, batches[size]),
            **{("net", str(n)): (nets.built[n], batches[size]) for n in (0, *counts)},
            **_gates(space, pairs, size),
            **_lights(lights.values(), batches, size),
            **_fulls(space, batches),
        }
        found.append(_read(timer.calls(calls), size, nets))
    return found


@dataclass(frozen=True)
class _Nets:
    """A cascade with so many samples in doubt, whatever they are: what it takes beyond its parts.

    Attributes:
        pair: its light and full model.
        built: by how many are in doubt.
    """

    pair: Gated
    built: Mapping[int, nn.Module]

    @staticmethod
    def of(space: ModelSpace, pairs: Sequence[Gated], counts: Iterable[int]) -> _Nets:
        """Take the cheapest light model in front of the original."""
        whole = [pair for pair in pairs if pair.has_net and pair.light.rest is None] or pairs
        pair = replace(min(whole, key=lambda pair: pair.light.work), later=None)
        gated = {n: replace(pair, gate=FirstScore(n)) for n in (0, *counts)}
        return _Nets(pair, {n: cascade_recipe(space, each).build({CASCADE: LARGEST}) for n, each in gated.items()})

    @property
    def full(self) -> str:
        """What its samples in doubt run, as `CallTimes` names it."""
        return self.pair.full if self.pair.light.rest is None else self.pair.light.name


def _gates(space: ModelSpace, pairs: Sequence[Gated], size: int) -> Calls:
    """Return a gate of each form, on outputs."""
    outputs = space.reference.search[torch.arange(size) % len(space.reference.search)]
    return {("gate", str(pair.form)): (pair.gate, [Inputs((outputs,))]) for pair in pairs}


def _lights(lights: Iterable[LightModel], batches: Mapping[int, Sequence[Inputs]], size: int) -> Calls:
    """Return the light models on whole batches, and what goes on behind those that leave early on parts of them."""
    calls: Calls = {}
    for light in lights:
        calls["light", light.name] = (light.module, batches[size])
        calls.update(_rests(light.name, light.rest, batches))
    return calls


def _fulls(space: ModelSpace, batches: Mapping[int, Sequence[Inputs]]) -> Calls:
    """Return what runs on samples in doubt: full models, and from a first exit on what leads to a second one and behind it."""
    calls: Calls = {
        ("full", full.name, str(n)): (full.module, given) for full, _ in space.fulls for n, given in batches.items()
    }
    for chain in space.chains:
        assert chain.first.rest is not None
        entered = {n: [chain.first.rest.entered(b) for b in given] for n, given in batches.items()}
        then = chain.then
        calls.update({("full", f"to {then.name}", str(n)): (then.module, given) for n, given in entered.items()})
        calls.update(_rests(then.name, then.rest, entered))
    return calls


def _rests(name: str, rest: Rest | None, batches: Mapping[int, Sequence[Inputs]]) -> Calls:
    """Return the calls of what goes on behind an exit, on batches as they reach it."""
    if rest is None:
        return {}
    return {("full", name, str(n)): (rest.module, [rest.entered(b) for b in given]) for n, given in batches.items()}


def _read(ms: Mapping[Part, float], size: int, nets: _Nets) -> CallTimes:
    """Return the times over the original's.

    A gate costs what it takes itself, and what a cascade takes beyond its light model where no sample is in doubt. What samples in
    doubt run costs more there than alone: they are moved, and its weights are not in the cache.
    """
    over = {part: taken / ms["original", ""] for part, taken in ms.items()}
    light = {part[1]: cost for part, cost in over.items() if part[0] == "light"}
    own = light[nets.pair.light.name]
    net = max(over["net", "0"] - own, 0.0)
    full: dict[str, list[tuple[int, float]]] = {}
    for part, cost in over.items():
        if part[0] == "full":
            alone = over["full", nets.full, part[2]]
            inside = over["net", part[2]] - own - net
            full.setdefault(part[1], []).append((int(part[2]), cost * max(inside / alone, 1.0)))
    gates = {part[1]: net + cost for part, cost in over.items() if part[0] == "gate"}
    return CallTimes(size, light, {name: tuple(known) for name, known in full.items()}, gates)


def fastest_of(space: ModelSpace, accepted: Sequence[Setting], timer: Timer) -> Setting:
    """Return the fastest of the accepted settings that are predicted to cost least, each timed as it will run.

    Predictions add what the models of a cascade take alone, each with its weights in the cache.
    """
    found: dict[int, Setting] = {}
    for setting in sorted(accepted, key=lambda s: s.cost):
        found.setdefault(id(setting.source), setting)
    few = list(found.values())[:MOST_TIMED]
    if len(few) == 1 or timer.expired:
        return few[0]
    with timer.interruptible():
        modules = [cascade_recipe(space, s.source).build(s.tolerances) for s in few]
        taken = [0.0] * len(few)
        for size in space.sizes:
            batches = timing_batches(space.proved.data.test, size)
            calls: Calls = {("original",): (space.proved.subject.original, batches)}
            calls.update({("cascade", str(i)): (module, batches) for i, module in enumerate(modules)})
            ms = timer.calls(calls)
            taken = [t + ms["cascade", str(i)] / ms["original",] for i, t in enumerate(taken)]
        return few[taken.index(min(taken))]
    return few[0]
