"""A sweep: one routed module at several tolerances, run on the same samples and timed in turns with the original.

Whoever measures says which settings: a comparison takes even steps of activity, the report some that its slider passes.

    swept = sweep([Setting("all light", 1e9, {"fc1..fc2": 1e9}), ...], module, original, quality, timed, seed=0)
    swept.points[0].speedup, swept.points[0].quality.mean
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from dendrofx.compare import controls
from dendrofx.compare.quality import Quality
from dendrofx.compare.records import latency
from dendrofx.compare.turns import Timed
from dendrofx.lowering.script import frozen_each
from dendrofx.machine.pace import noisy, pace
from dendrofx.machine.progress import progress
from dendrofx.machine.race import Race, Timing
from dendrofx.rewriting.module import RoutedModule
from dendrofx.rewriting.tolerances import set_tolerances, tolerances

CHOSEN, ORIGINAL, AGAIN = "as it is", "original", "original again"
NAMES = (ORIGINAL, AGAIN, CHOSEN)


@dataclass(frozen=True)
class Setting:
    """Tolerances of a module, to be run and timed at.

    Attributes:
        name: what they are; "as it is" is the setting that others are compared with.
        factor: what every site's unit was multiplied by; None where the tolerances are no such multiple.
        tolerances: by site; sites that are not named keep theirs.
        random: whether a random choice of as many rows is to be run beside it.
        quality: where it was run already.
    """

    name: str
    factor: float | None
    tolerances: Mapping[str, float]
    random: bool = False
    quality: Quality | None = None


@dataclass(frozen=True)
class Point:
    """A setting, run and timed.

    Attributes:
        name, factor: of the setting.
        random: quality of a random choice of as many rows; None where none was asked for.
        speedup: the original's median over its own.
    """

    name: str
    factor: float | None
    quality: Quality
    timing: Timing
    speedup: float
    random: Quality | None = None

    @property
    def ms(self) -> float:
        """Median of a call."""
        return self.timing.p50

    def to_json(self) -> dict[str, Any]:
        """Fractions, not percent; the random gate's deviation where it was run."""
        random = {} if self.random is None else {"random_deviation": self.random.deviation()}
        return {
            "tolerance": self.factor,
            "activity": self.quality.activity,
            "effective_compute": self.quality.effective_compute,
            "latency_ms": latency(self.timing),
            "speedup_vs_scripted": self.speedup,
            "deviation": self.quality.deviation(),
            "agreement": self.quality.agreement,
            **random,
        }


@dataclass(frozen=True)
class Sweep:
    """Points, and the race that timed them beside the original twice."""

    points: list[Point]
    race: Race

    @property
    def chosen(self) -> Point:
        """The module as it is."""
        return next(p for p in self.points if p.name == CHOSEN)

    @property
    def original_ms(self) -> float:
        """The original's median."""
        return self.race.timings[ORIGINAL].p50

    @property
    def again(self) -> float:
        """The original's other median over this one, A/A."""
        return self.race.ratio(AGAIN, ORIGINAL)

    @property
    def noisy(self) -> str:
        """What shows that the machine was disturbed; empty where nothing does."""
        return noisy(self.race, *NAMES)

    @property
    def unreliable(self) -> str:
        """Why no times may be compared, with the estimates that contradict each other; empty where they may."""
        held = pace(self.race, *NAMES)
        return "" if held.medians_hold else f"{held} ({held.doubt})"


def at(module: RoutedModule, values: Mapping[str, float]) -> RoutedModule:
    """Return a copy of a module with other tolerances."""
    made = copy.deepcopy(module)
    set_tolerances(made, values)
    return made


def everywhere(module: RoutedModule, value: float) -> RoutedModule:
    """Return a copy with one tolerance at every site."""
    return at(module, dict.fromkeys(tolerances(module), value))


def sweep(
    settings: Sequence[Setting],
    module: RoutedModule,
    original: nn.Module,
    quality: Callable[[nn.Module], Quality],
    timed: Timed,
    seed: int,
) -> Sweep:
    """Run every setting, and time all of them in turns with the original, scripted and frozen alike.

    Args:
        settings: at least one.
        module: that they are settings of.
        original: what speed is compared with, scripted and frozen.
        quality: runs a module on the samples.
        timed: races modules.
        seed: of the random choices.
    """
    values = {s.name: s.tolerances for s in settings}
    names = progress(list(values), "scripting", "setting")
    frozen = frozen_each(module, lambda made, name: set_tolerances(made, values[name]), names)
    race = timed({ORIGINAL: original, AGAIN: original, **frozen})
    points = []
    for setting in settings:
        found = setting.quality or quality(frozen[setting.name])
        random = quality(controls.at_random(module, found.counts, seed)) if setting.random else None
        timing, speedup = race.timings[setting.name], race.ratio(ORIGINAL, setting.name)
        points.append(Point(setting.name, setting.factor, found, timing, speedup, random))
    return Sweep(points, race)
