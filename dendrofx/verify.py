"""The last word of the decision: the whole rewritten model timed against the original, both scripted and frozen alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from dendrofx.capture import capture
from dendrofx.find_sites import find_sites
from dendrofx.inputs import Inputs
from dendrofx.module import RoutedModule, graph_names, set_tolerances
from dendrofx.rewrite import Branches, rewrite
from dendrofx.stopwatch import AGAIN, BASELINE, ROUTED
from dendrofx.timing import Race

MOST_BATCHES = 8  # different inputs that take turns


@dataclass(frozen=True)
class ModelTimes:
    """One race of the rewritten model against the original.

    Attributes:
        batch: samples per call.
        scripted_ms: median of the original's calls, the better of its two entries.
        routed_ms: median of the rewritten model's.
        noise: how far the original was off against itself.
    """

    batch: int
    scripted_ms: float
    routed_ms: float
    noise: float

    @property
    def speedup(self) -> float:
        """The original's median over the rewritten model's."""
        return self.scripted_ms / self.routed_ms

    def wins(self, min_speedup: float) -> bool:
        """Whether the gain reaches `min_speedup`, and beyond the noise where that is larger."""
        return self.speedup >= max(min_speedup, 1 + self.noise)

    def reason(self, min_speedup: float) -> str:
        """Why it did not win, with the figures."""
        pace = f"{self.speedup:.2f} x the scripted original at batch {self.batch} ({self.scripted_ms:.3g} ms)"
        if self.speedup >= min_speedup:
            return f"{pace}, within the {100 * self.noise:.0f} % that the original differed from itself"
        return f"{pace}, min_speedup is {min_speedup:g}"


def judge(race: Race, batch: int) -> ModelTimes:
    """The figures of a race, in the original's favour."""
    base, again = race.timings[BASELINE].p50, race.timings[AGAIN].p50
    return ModelTimes(batch, min(base, again), race.timings[ROUTED].p50, max(base, again) / min(base, again) - 1)


def lost(times: Sequence[ModelTimes], min_speedup: float) -> str | None:
    """Why the rewritten model did not win, at the batch size where it is furthest from it; None where it won at each."""
    losing = [t for t in times if not t.wins(min_speedup)]
    return min(losing, key=lambda t: t.speedup).reason(min_speedup) if losing else None


def site_alone(block: nn.Sequential, branches: Branches, tolerance: float) -> RoutedModule:
    """A site on its own: its block captured, and routed at a tolerance."""
    captured = capture(block.eval())
    site = find_sites(captured).expect(1)[0]
    module = rewrite(captured, [site], {site.name: branches})
    set_tolerances(module, dict.fromkeys(graph_names(module).values(), tolerance))
    return module


def timing_batches(given: Sequence[Inputs], size: int) -> list[Inputs]:
    """Up to eight batches of `size` samples, cut from calibration batches and repeated where these are smaller."""
    made = []
    for batch in given:
        samples = batch.samples
        if samples == size:
            made.append(batch)
        elif samples > 1 or all(t.dim() > 0 and t.size(0) == 1 for t in batch.carrying):
            starts = range(0, max(samples - size, 0) + 1, max(size, 1))
            for start in list(starts)[: max(MOST_BATCHES // len(given), 1)]:
                made.append(batch.take((torch.arange(size) + start) % samples))
        if len(made) >= MOST_BATCHES:
            break
    return made
