"""Recorded times in place of a stopwatch, so that decisions can be tested without timing anything."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dendrofx.finish import finish
from dendrofx.gates import AlwaysLight, GateForm
from dendrofx.gates.form import reads_of_light
from dendrofx.graph.capture import capture
from dendrofx.graph.find_sites import find_sites
from dendrofx.light import Int8, LightForm, LowRank
from dendrofx.machine.race import Race, Timing
from dendrofx.plan.entries import SitePlan
from dendrofx.plan.plan import Plan
from dendrofx.request import Request
from dendrofx.rewriting.counted import graph_names
from dendrofx.rewriting.module import RoutedModule
from dendrofx.rewriting.tolerances import tolerances
from dendrofx.search.blocks import BlockSpace
from dendrofx.search.choose import Candidate
from dendrofx.search.cost import BLOCK, SiteTimes
from dendrofx.search.decide_blocks import plainly_decided, search
from dendrofx.search.profiler import AGAIN, BASELINE, ROUTED, Profiler
from dendrofx.search.timer import Part
from dendrofx.subject import Subject
from dendrofx.values.calibration import Calibration
from dendrofx.values.fingerprint import model_fingerprint
from dendrofx.values.inputs import Inputs

Figure = float | Callable[[Any], float]
Medians = tuple[float, float, float]  # scripted, scripted again, routed
Parts = Callable[[str, int], Mapping[str, Figure]]  # of a site's shape and rows per call: what `site_times` takes
Races = Callable[[list[str], int], Medians | Race]  # of the routed sites and the samples per call
FAST: Medians = (10.0, 10.0, 5.0)
SLOW: Medians = (10.0, 10.0, 20.0)
LOW = LowRank(8)
EIGHT = Int8(weight_bits=7)
EVERY = AlwaysLight()
# How `decide` is asked where one site has one candidate, and where each of three has (those of `models.Residual(64, 256)`).
ONE: dict[str, Any] = {"lights": [LOW], "gate": EVERY}
THREE: dict[str, Any] = {"lights": [EIGHT], "gate": EVERY, "max_deviation": 0.3}
SHAPES = ("64 -> 64", "64 -> 256 -> 64", "64 -> 4")  # stem, fc1..fc2, head


def rows(count: int = 200, seed: int = 0) -> Tensor:
    """f32[N, 64], the same for a seed."""
    return torch.randn(count, 64, generator=torch.Generator().manual_seed(seed))


def is_the_original(routed: nn.Module, model: nn.Module) -> bool:
    """Nothing is routed, and not a bit differs."""
    x = rows(50, 1)
    return torch.equal(routed(x), model(x)) and tolerances(routed) == {}


def site_times(
    rows: int,
    candidates: Sequence[Candidate],
    fulls: Mapping[str, nn.Module],
    block: float = 10.0,
    light: Figure = 1.0,
    gate: Figure = 0.5,
    packed: Figure = 10.0,
    split: float = 0.0,
    moved: float = 0.0,
) -> SiteTimes:
    """ms; `light` and `gate` may depend on the form, `packed`, full branches but the block, on the name. One row takes half."""

    def of(figure: Figure, form: object) -> float:
        return float(figure(form)) if callable(figure) else figure

    whole = {name: block if name == BLOCK else of(packed, name) for name in fulls}
    branches = [c.branches for c in candidates]
    return SiteTimes(
        rows=rows,
        block=block,
        full={n: tuple(sorted({(1, ms / 2 if rows > 1 else ms), (rows, ms)})) for n, ms in whole.items()},
        light={(str(b.light_form), reads_of_light(b.gate_form)): of(light, b.light_form) for b in branches},
        gate={(str(b.light_form), str(b.gate_form)): of(gate, b.gate_form) for b in branches},
        split=split,
        moved=moved,
    )


class Recorded(Profiler):
    """A `Timer` that tells what it was given, and what it was asked.

    Args:
        parts: what differs from `site_times`' defaults, by shape and rows per call.
        races: of the whole model, medians or all of it, by routed sites and samples per call.
        expired: whether time is up from the start.
        interrupt: Ctrl-C at these calls, counted from 1: `site 2`, `models 1`; and `calls`, of routed sites alone.
    """

    def __init__(
        self,
        parts: Parts = lambda shape, rows: {},
        races: Races = lambda sites, samples: FAST,
        expired: bool = False,
        interrupt: Sequence[str] = (),
    ) -> None:
        super().__init__(math.inf)
        self.parts, self.races, self.interrupt = parts, races, interrupt
        self.deadline = -math.inf if expired else math.inf
        self.sites: list[tuple[str, int, list[str], list[str]]] = []  # shape, rows, light forms, full branches
        self.raced: list[tuple[list[str], int]] = []

    def site(
        self, make: str, rows: Tensor, candidates: Sequence[Candidate], fulls: Mapping[str, nn.Module]
    ) -> SiteTimes:
        """What was recorded of one site."""
        shape = make.partition(" Linear")[0]  # the layers follow
        self.sites.append((shape, len(rows), [str(c.branches.light_form) for c in candidates], list(fulls)))
        if f"site {len(self.sites)}" in self.interrupt:
            raise KeyboardInterrupt
        given: dict[str, Any] = dict(self.parts(shape, len(rows)))
        return site_times(len(rows), candidates, fulls, **given)

    def calls(self, calls: Mapping[Part, tuple[nn.Module, Sequence[Inputs]]]) -> dict[Part, float]:
        """What was recorded of routed sites alone."""
        if "calls" in self.interrupt:
            raise KeyboardInterrupt
        raced = {part: _race(self.races([part[0]], batches[0].samples)) for part, (_, batches) in calls.items()}
        return {part: race.timings[ROUTED].p50 for part, race in raced.items()}

    def models(self, captured: nn.Module, routed: nn.Module, batches: Sequence[Inputs]) -> Race:
        """What was recorded of the whole model."""
        sites = list(graph_names(routed)) if isinstance(routed, RoutedModule) else []  # else an exact model
        self.raced.append((sites, batches[0].samples))
        if f"models {len(self.raced)}" in self.interrupt:
            raise KeyboardInterrupt
        return _race(self.races(sites, batches[0].samples))


def _race(recorded: Medians | Race) -> Race:
    if isinstance(recorded, Race):
        return recorded
    return Race({n: Timing((ms,) * 3) for n, ms in zip((BASELINE, AGAIN, ROUTED), recorded, strict=True)}, 3, 0.0)


@dataclass
class Decided:
    """A decision on recorded times: what `transform` does, with another timer. `raced` are the whole models' races."""

    module: RoutedModule
    space: BlockSpace
    chosen: Mapping[str, Candidate]
    raced: list[tuple[list[str], int]]

    @property
    def plan(self) -> Plan:
        """The module's plan."""
        return self.module.plan

    @property
    def site(self) -> SitePlan:
        """The entry of a model with one site."""
        (entry,) = self.plan.sites
        return entry


def decide(
    model: nn.Module,
    timer: Recorded | None,
    rows: Tensor | list[Any] | None,
    max_deviation: float = 0.1,
    lights: Sequence[LightForm] | None = None,
    gate: GateForm | None = None,
    example: Tensor | None = None,
    **options: Any,
) -> Decided:
    """Explore, choose, calibrate and decide; at 64 samples per call unless told otherwise."""
    data = None if rows is None else Calibration.read(rows, 0)
    inputs = None if example is None else Inputs.of(example)
    captured = capture(model)
    options = {"batch_sizes": (64,), **options}
    request = Request(max_deviation, None if lights is None else list(lights), gate, **options)
    subject = Subject(captured, captured, find_sites(captured), data, inputs, model_fingerprint(model))
    space, result = search(subject, request, timer)
    raced = list(timer.raced) if timer is not None else []
    module = finish(plainly_decided(space, result, timer), inputs)
    return Decided(module, space, result.made.choice.chosen, raced)
