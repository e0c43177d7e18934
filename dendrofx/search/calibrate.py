"""Calibration: per-site tolerances from one global multiplier.

Site s has the tolerance `multiplier * weight_s`. The weight is the site's error that moves the model's output by one unit of
deviation, so the multiplier is in units of model deviation and one dial serves all sites.

Mean deviation is not monotone in the multiplier, and the largest multiplier that meets a budget on the calibration rows
misses it on half of all test sets. So a fixed grid is walked upwards, on rows that fitted nothing, and the walk stops at the
first step whose upper limit `mean + 1.645 s / sqrt(n)` (one-sided 95 %, normal approximation) exceeds the budget, in any of the
outputs that it is about. The last step before it is kept. The grid is fixed before the tuning rows are seen: its steps are
evenly spaced in activity on the rows that the light branches and gates were chosen on.

Where the caller limits what any sample may deviate by, a step must keep that too, on the samples that it is measured on.

Each step runs the model, and the low ones, where most rows run both branches, take longest. So the walk starts near where the
budget ended on the choosing rows, and from the bottom only if that step fails. A walk with two starts has two chances to pass a
step that it should not, so each takes half of the 5 %: 1.960 instead of 1.645.

Source: fixed sequence testing from several starts, A. Angelopoulos, S. Bates, E. Candes, M. Jordan, L. Lei, "Learn then Test",
2021, section 3.2.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dendrofx.guarantee.losses import Seen
from dendrofx.guarantee.sequence import fixed_sequence
from dendrofx.machine.memory import return_free_memory
from dendrofx.machine.progress import progress
from dendrofx.rewriting.module import RoutedModule
from dendrofx.rewriting.tolerances import set_tolerances
from dendrofx.runtime.scores import UNJUDGED
from dendrofx.statistics.quantiles import ScoreCounts
from dendrofx.values.counts import Counts
from dendrofx.values.measure import largest_mean

STEPS = 64
ONE_SIDED_95, ONE_SIDED_97_5 = 1.645, 1.960
# A walk starts this share of its grid's steps below the one that the choosing rows reached: its own rows differ from them.
BELOW = 1 / 8
# What a module does on samples.
Outcome = Callable[[RoutedModule], Seen]


@dataclass(frozen=True)
class Step:
    """One step of the walk.

    Attributes:
        multiplier: of all tolerances.
        mean: of the losses, in the output where it is largest.
        limits: by output, the upper limit of that mean.
        counts: what was executed.
        accepted: whether the largest of the limits keeps the budget, which is for every output, and no sample deviates by too much.
        largest: deviation of a sample; None where it was not looked for.
    """

    multiplier: float
    mean: float
    limits: tuple[float, ...]
    counts: Counts
    accepted: bool
    largest: float | None = None

    @property
    def upper(self) -> float:
        """The largest of the limits: the budget is for every output."""
        return max(self.limits)


def upper_limit(losses: Tensor, quantile: float = ONE_SIDED_95) -> float:
    """Return the one-sided upper confidence limit of the mean of f64[N]; infinity for fewer than two samples."""
    n = len(losses)
    if n < 2:
        return math.inf
    limit = float(losses.mean() + quantile * losses.std() / math.sqrt(n))
    return math.inf if math.isnan(limit) else limit  # of an infinite loss


def apply_multiplier(gm: RoutedModule, weights: Mapping[str, float], multiplier: float) -> None:
    """Set every site's tolerance to `multiplier * weights[graph name]`, at most the largest float32."""
    largest = torch.finfo(torch.float32).max
    set_tolerances(gm, {name: min(multiplier * weight, largest) for name, weight in weights.items()})


def multiplier_grid(scores: Sequence[Tensor | ScoreCounts], macs: Sequence[int], steps: int = STEPS) -> list[float]:
    """Return ascending multipliers at which activity falls from 1 to 0 in even steps, on the rows behind `scores`.

    Args:
        scores: per site f32[N], its rows' scores in units of the multiplier (divided by the site's weight), or counts of them.
        macs: per site, multiply-adds per row of the full block.
        steps: how many.

    Returns:
        At most `steps` multipliers, without repeats, each just above a row's score, so that this row is easy. Rows that
        cannot be judged are never made easy.
    """
    values = [s.largest if isinstance(s, ScoreCounts) else s for s in scores]
    counts = [s.counts if isinstance(s, ScoreCounts) else torch.ones_like(s) for s in scores]
    score = torch.cat([v.double() for v in values])
    share = torch.cat([c.double() * (m / float(c.sum())) for c, m in zip(counts, macs, strict=True)])
    order = score.argsort(stable=True)
    score, easy = score[order], share[order].cumsum(0) / share.sum()
    judged = score < UNJUDGED / 1e6
    wanted = torch.linspace(1 / steps, 1, steps, dtype=torch.float64)
    picked = torch.searchsorted(easy[judged], wanted - 1e-9).clamp_max(max(int(judged.sum()) - 1, 0)).unique()
    return [float(s) * (1 + 1e-6) + 1e-12 for s in score[judged][picked].unique()] if bool(judged.any()) else []


def start_of(grid: Sequence[float], reached: float) -> int:
    """Return the step to start a walk at, from the multiplier that the choosing rows reached, 0 where they reached none."""
    return max(bisect_right(grid, reached) - 1 - math.ceil(BELOW * len(grid)), 0)


def walk(
    gm: RoutedModule,
    weights: Mapping[str, float],
    grid: Sequence[float],
    outcome: Outcome,
    limit: float,
    start: int = 0,
    margin: bool = True,
    most: float | None = None,
) -> list[Step]:
    """Walk the grid and leave `gm` at the last step within the budget, or at tolerance 0 when there is none.

    Args:
        gm: a routed module; only its tolerances are changed.
        weights: by graph name of the site.
        grid: ascending multipliers.
        outcome: measures the module on samples that fitted nothing.
        limit: the budget, for the mean loss of each output.
        start: the step to start at, fixed without these samples.
        margin: whether upper limits of the means must keep it; else the means, for what is certified later, on other samples.
        most: that a sample may deviate by; None for any.

    Returns:
        The steps within the budget that were taken, in order; the last one is in force.
    """
    quantile = ONE_SIDED_97_5 if start else ONE_SIDED_95

    def step(multiplier: float) -> Step:
        apply_multiplier(gm, weights, multiplier)
        seen = outcome(gm)
        return_free_memory()
        limits = tuple(upper_limit(of, quantile) if margin else float(of.mean()) for of in seen.losses.unbind(1))
        accepted = max(limits) <= limit and seen.within(most)
        return Step(multiplier, largest_mean(seen.losses), limits, seen.counts, accepted, seen.largest)

    tested = fixed_sequence(grid, step, (start, 0))
    kept = [s for s in progress(tested, "calibrating", "step", len(grid) - start) if s.accepted]
    apply_multiplier(gm, weights, kept[-1].multiplier if kept else 0.0)
    return kept
