"""Prices: what a candidate costs at an activity, over its block. Counted before anything is timed, measured after.

What a parallel region costs depends on who else runs: microseconds on a machine of one's own, a scheduler's time slice beside
workers that use all cores. Times taken on a quiet machine do not know it, so regions are no part of a price. They decide between
candidates that take the same time: the one that opens fewer than the others beyond its block's is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from torch import Tensor, nn

from dendrofx.gates.form import reads_of_light
from dendrofx.light import LightForm
from dendrofx.machine.parallel_regions import count_regions
from dendrofx.search.choose import Candidate, scores
from dendrofx.search.cost import BLOCK, SiteTimes

# A counted cost must be below this: gather, scatter and the gate's own passes over memory are not counted, and smaller savings
# have not paid for them. A measured one needs less of a margin, and more where the block differed from itself.
MOST_COUNTED = 0.9
MOST_MEASURED = 0.95
TIE = 0.05
# An exact form must be faster by what timing can tell.
MOST_EXACT = 0.97


@dataclass(frozen=True)
class CostEstimate:
    """Cost of a candidate over its block's.

    Attributes:
        cost: mean over the batch sizes.
        pays: whether it is below the block's by a margin at every batch size.
        candidate: with the full branch that is cheapest.
        ms, block_ms: predicted for a call at the largest batch size, or at the one that loses most, beside the block's; None
            when counted.
        break_even: the activity from which routing no longer pays there; None when counted.
        rows: rows of that call.
        regions: see `regions_beyond`; 0 when counted.
        doubt: how far the block was off from itself, which widens the margin; see `SiteTimes.doubt`.
    """

    cost: float
    pays: bool
    candidate: Candidate
    ms: float | None = None
    block_ms: float | None = None
    break_even: float | None = None
    rows: int = 0
    regions: int = 0
    doubt: float = 0.0

    def __str__(self) -> str:
        if self.ms is None or self.block_ms is None or self.break_even is None:
            return f"would cost {100 * self.cost:.0f} % of the block"
        rows = "1 row" if self.rows == 1 else f"{self.rows} rows"
        off = f"; the block differed from itself by {100 * self.doubt:.0f} %" if self.doubt else ""
        return (
            f"would take {self.ms:.3g} ms where the block takes {self.block_ms:.3g} ({rows}; it breaks even at"
            f" {100 * self.break_even:.1f} % activity{off})"
        )


def cheapest(prices: Sequence[CostEstimate]) -> CostEstimate:
    """Return the cheapest; of those as cheap within timing's noise the one of fewest regions, then of the gate with most skill."""
    least = min(p.cost for p in prices)
    close = [p for p in prices if p.cost <= (1 + TIE) * least]
    skill = {id(p): -1.0 if p.candidate.skill is None else p.candidate.skill for p in close}
    return max(close, key=lambda p: (p.pays, -p.regions, skill[id(p)], -p.cost))


def regions_beyond(block: nn.Module, candidate: Candidate, rows: Tensor) -> int:
    """Return the parallel regions that a site opens beyond its block's where no row is hard; none on one thread."""
    branches = candidate.branches

    def easy() -> None:
        if branches.gate_form.reads == "input":
            branches.light(rows)
        scores(branches.gate_form, branches.gate, branches.light, rows)

    return max(count_regions(easy) - count_regions(lambda: block(rows)), 0)


def counted(candidate: Candidate, activity: float, rows: Sequence[float]) -> CostEstimate:
    """Return the price from multiply-adds; `rows` per call, at each batch size."""
    costs = [candidate.macs.cost(activity, max(r, 1.0)) for r in rows]
    return CostEstimate(sum(costs) / len(costs), max(costs) <= MOST_COUNTED, candidate)


@dataclass(frozen=True)
class ExactForm:
    """An exact form of a block. It is built when it is first asked for: most are not, and laid-out weights take memory."""

    form: LightForm
    block: nn.Sequential

    @cached_property
    def module(self) -> nn.Module:
        """What computes it."""
        return self.form.fit(self.block)


@dataclass(frozen=True)
class Measured:
    """The times of one site at each batch size, and the exact full branches that were timed beside the block.

    Attributes:
        times: at each batch size.
        fulls: by name.
        regions: by light and gate form, see `regions_beyond`, at the smallest batch size.
    """

    times: Sequence[SiteTimes]
    fulls: Mapping[str, ExactForm]
    regions: Mapping[tuple[str, str], int] = field(default_factory=dict)
    even: dict[tuple[str, ...], float] = field(default_factory=dict, repr=False, compare=False)  # what is known already

    def knows(self, candidate: Candidate) -> bool:
        """Return whether the candidate was timed."""
        return all(t.knows(*_names(candidate)) for t in self.times)

    def exact(self) -> ExactForm | None:
        """Return the exact form that replaces the block where the site is not routed.

        The fastest of those that are faster at one batch size, and at none slower, by what timing can tell.
        """
        ratios = {name: [dict(t.full[name])[t.rows] / t.block for t in self.times] for name in self.fulls}
        better = [name for name, found in ratios.items() if min(found) <= MOST_EXACT and max(found) <= 1 / MOST_EXACT]
        return self.fulls[min(better, key=lambda name: sum(ratios[name]))] if better else None

    def price(self, candidate: Candidate, activity: float, settled: bool = False) -> CostEstimate:
        """Return the price with the cheapest full branch: what the caller named, or the faster of the block and its exact forms.

        Args:
            candidate: one that was timed.
            activity: share of hard rows.
            settled: its full branch is no longer open.
        """
        given = candidate.branches.full_form
        options = [str(given)] if given is not None else [BLOCK] if settled else [BLOCK, *self.fulls]
        costs = {name: self._costs(candidate, name, activity) for name in options}
        best = min(options, key=lambda name: sum(costs[name]))
        chosen = candidate
        if given is None and best != BLOCK:
            full = self.fulls[best]
            chosen = replace(candidate, branches=replace(candidate.branches, full_form=full.form, full=full.module))
        over = [cost + t.doubt - MOST_MEASURED for cost, t in zip(costs[best], self.times, strict=True)]
        pays, worst = max(over) <= 0, over.index(max(over))
        last = self.times[-1] if pays else self.times[worst]
        return CostEstimate(
            sum(costs[best]) / len(costs[best]),
            pays,
            chosen,
            ms=last.predict(*_names(candidate), best, activity),
            block_ms=last.block,
            break_even=self._break_even(last, (*_names(candidate), best)),
            rows=last.rows,
            regions=self.regions.get(_names(candidate)[:2], 0),
            doubt=last.doubt,
        )

    def _break_even(self, times: SiteTimes, names: tuple[str, str, str, str]) -> float:
        """Return the activity at which a candidate stops to pay, found once: it does not depend on the activity asked about."""
        key = (str(times.rows), *names)
        if key not in self.even:
            self.even[key] = times.break_even(*names)
        return self.even[key]

    def _costs(self, candidate: Candidate, full: str, activity: float) -> list[float]:
        return [t.predict(*_names(candidate), full, activity) / t.block for t in self.times]


def _names(candidate: Candidate) -> tuple[str, str, str]:
    branches = candidate.branches
    return str(branches.light_form), str(branches.gate_form), reads_of_light(branches.gate_form)
