"""Measuring: a module at a few tolerances, and the original, timed in turns on the same batches."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from dendrofx.compare import controls
from dendrofx.lowering.script import script
from dendrofx.machine.pace import noisy, pace, touched
from dendrofx.machine.race import Race, on_one_thread, race
from dendrofx.report.given import Given
from dendrofx.report.replay import Replay
from dendrofx.rewriting.module import RoutedModule
from dendrofx.rewriting.tolerances import set_tolerances, tolerances
from dendrofx.runtime.scores import UNJUDGED
from dendrofx.values.counts import CASCADE, Counts, activity, of_sites
from dendrofx.values.inputs import Inputs
from dendrofx.values.measure import counted_outputs, deviations, outputs

CHOSEN, ORIGINAL, AGAIN = "as it is", "original", "original again"
ACTIVITIES = (0.5, 0.2, 0.05, 0.01)  # of the points between none and all light


@dataclass(frozen=True)
class Quality:
    """How far a module's outputs are from the original's, and what it executed.

    Attributes:
        far: f64[N], of each sample, in the output that the report is about.
        counts: rows and multiply-adds by site.
    """

    far: Tensor
    counts: Counts

    @property
    def mean(self) -> float:
        """Mean deviation."""
        return float(self.far.mean())

    @property
    def p99(self) -> float:
        """99th percentile of the deviation."""
        return float(self.far.quantile(0.99))

    @property
    def hard(self) -> int:
        """Rows that went full, over all sites."""
        return sum(c["hard_rows"] for c in self._routed.values())

    @property
    def rows(self) -> int:
        """All of these rows."""
        return sum(c["rows"] for c in self._routed.values())

    @property
    def activity(self) -> float:
        """See `values.counts.activity`."""
        return activity(self.counts)

    @property
    def _routed(self) -> Mapping[str, Mapping[str, int]]:
        return {CASCADE: self.counts[CASCADE]} if CASCADE in self.counts else of_sites(self.counts)


@dataclass(frozen=True)
class Point:
    """The module at some tolerances, run and timed.

    Attributes:
        name: "as it is", or what its tolerances are.
        factor: of the replay's units; None where they are no multiple of these.
        ms, speedup: median of a call, and how many times as fast it is as the original's.
    """

    name: str
    factor: float | None
    quality: Quality
    ms: float
    speedup: float


@dataclass(frozen=True)
class Sweep:
    """Points in the order of their activity, and the race that timed them.

    Attributes:
        batch: samples per call; original_ms: the original's median; again: its other median over this one, A/A.
        noisy: what shows that the machine was disturbed; unreliable: why no times may be compared. Empty elsewhere.
        random: quality of a random choice of as many rows; None where all or none go full.
    """

    points: list[Point]
    batch: int
    original_ms: float
    again: float
    rounds: int
    threads: int
    noisy: str
    unreliable: str
    random: Quality | None = None

    @property
    def chosen(self) -> Point:
        """The module as it is."""
        return next(p for p in self.points if p.name == CHOSEN)


@torch.no_grad()
def quality(given: Given, module: nn.Module) -> Quality:
    """Return the quality of a module on all samples."""
    if isinstance(module, RoutedModule):
        output, counts = counted_outputs(module, given.batches, given.covered)
    else:
        output, counts = outputs(module, given.batches, given.covered), {}
    return Quality(deviations(given.reference, output)[:, worst_output(given)], counts)


def worst_output(given: Given) -> int:
    """Return the place, among the covered outputs, of the one that deviates most in the mean."""
    if len(given.reference) == 1:
        return 0
    output = outputs(given.module, given.batches, given.covered)
    return int(deviations(given.reference, output).mean(0).argmax())


def at(module: RoutedModule, values: Mapping[str, float]) -> RoutedModule:
    """Return a copy of a module with other tolerances."""
    made = copy.deepcopy(module)
    set_tolerances(made, values)
    return made


def everywhere(module: RoutedModule, value: float) -> RoutedModule:
    """Return a copy with one tolerance at every site."""
    return at(module, dict.fromkeys(tolerances(module), value))


def sweep(given: Given, replay: Replay, chosen: Quality, seconds: float, seed: int) -> Sweep:
    """Run and time the module at its own tolerances and a few others."""
    module = given.module
    made: dict[str, tuple[float | None, RoutedModule]] = {CHOSEN: (replay.chosen, module)}
    for name, factor in _others(replay):
        made[name] = (factor, at(module, replay.tolerances(factor)))
    result = _race(given, {name: m for name, (_, m) in made.items()}, seconds, seed)
    points = [
        Point(
            name,
            factor,
            chosen if name == CHOSEN else quality(given, point),
            result.timings[name].p50,
            pace(result, ORIGINAL, AGAIN, name).medians,
        )
        for name, (factor, point) in made.items()
    ]
    points.sort(key=lambda p: (-p.quality.activity, p.quality.mean))
    return replace(_sweep(given, result, points, CHOSEN), random=_random(given, chosen, seed))


def compared(given: Given, chosen: Quality, seconds: float, seed: int) -> Sweep:
    """Run and time a module that routes nothing beside the original."""
    result = _race(given, {CHOSEN: given.module}, seconds, seed)
    speedup = pace(result, ORIGINAL, AGAIN, CHOSEN).medians
    return _sweep(given, result, [Point(CHOSEN, None, chosen, result.timings[CHOSEN].p50, speedup)], CHOSEN)


def _others(replay: Replay) -> list[tuple[str, float]]:
    """Return names and factors: none light, shares of the rows full, all light; one for each number of rows."""
    largest = 2 * UNJUDGED / min(replay.units)
    seen = {replay.at(f).hard for f in (0.0, largest)} | ({replay.at(replay.chosen).hard} if replay.chosen else set())
    found = [("every row full", 0.0)]
    for share in ACTIVITIES:
        factor = replay.factor_at(share)
        if factor < UNJUDGED and (hard := replay.at(factor).hard) not in seen:
            seen.add(hard)
            found.append((f"about {100 * share:g} % of rows full", factor))
    return [*found, ("every row light", largest)]


def _random(given: Given, chosen: Quality, seed: int) -> Quality | None:
    if not 0 < chosen.hard < chosen.rows:
        return None
    return quality(given, controls.at_random(given.module, chosen.counts, seed))


def _sweep(given: Given, result: Race, points: Sequence[Point], main: str) -> Sweep:
    base = result.timings[ORIGINAL].p50
    held = pace(result, ORIGINAL, AGAIN, main)
    return Sweep(
        list(points),
        given.timed[0].samples,
        base,
        result.ratio(AGAIN, ORIGINAL),
        result.rounds,
        result.threads,
        noisy(result, ORIGINAL, AGAIN, main),
        "" if held.medians_hold else f"{held} ({held.doubt})",
    )


def _race(given: Given, modules: Mapping[str, nn.Module], seconds: float, seed: int) -> Race:
    """Time modules in turns with the original, all of them frozen alike; once more on one thread where times are in doubt."""
    original = script(given.original, freeze=True)
    frozen = {ORIGINAL: original, AGAIN: original, **{n: script(m, freeze=True) for n, m in modules.items()}}
    names = (ORIGINAL, AGAIN, CHOSEN)
    result = _timed(frozen, given.timed, seconds, seed)
    if result.threads > 1 and touched(result, names):
        with on_one_thread():
            result = replace(result, alone=_timed({n: frozen[n] for n in names}, given.timed, seconds, seed))
    return result


def _timed(modules: Mapping[str, nn.Module], batches: list[Inputs], seconds: float, seed: int) -> Race:
    calls: dict[str, Callable[[int], object]] = {n: partial(_call, m, batches) for n, m in modules.items()}
    with torch.no_grad():
        return race(calls, seconds, seed, batches=dict.fromkeys(calls, len(batches)))


def _call(module: nn.Module, batches: list[Inputs], number: int) -> object:
    return batches[number % len(batches)].call(module)
