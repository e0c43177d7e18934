"""Quantiles of scores, that are added up over parts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Bits of a float32 that are not told apart: of the 23 of its fraction 12 are left, and a bin is at most 1/4096 of its scores wide.
COARSE = 11


@dataclass(frozen=True)
class ScoreCounts:
    """How many scores there were in each narrow bin; a quantile is some score of its bin, the largest that was seen there.

    Bins are those of the leading bits of floating-point numbers, so they are the same for every part and every scale, and counts of
    two parts are added; the idea of G. Tene's HdrHistogram. What quantiles say of the rank is exact.

    Attributes:
        bins: i64[k], ascending.
        largest: f32[k], the largest score of each.
        counts: i64[k].
    """

    bins: Tensor
    largest: Tensor
    counts: Tensor

    @staticmethod
    def of(scores: Tensor) -> ScoreCounts:
        """Count f32[N]; NaN counts as infinite, which no tolerance is above."""
        found = scores.detach().float().nan_to_num(torch.inf, torch.inf, -torch.inf) + 0.0  # -0.0 is 0.0
        bits = found.view(torch.int32).to(torch.int64)
        ordered = torch.where(bits < 0, -1 - (bits & 0x7FFFFFFF), bits)
        return _joined(ordered >> COARSE, found, torch.ones_like(bits))

    def __add__(self, other: ScoreCounts) -> ScoreCounts:
        pairs = ((self.bins, other.bins), (self.largest, other.largest), (self.counts, other.counts))
        return _joined(*(torch.cat(pair) for pair in pairs))

    def over(self, weight: float) -> ScoreCounts:
        """Return the counts of scores that are divided by a weight; for their quantiles, not to be added to others."""
        return ScoreCounts(self.bins, self.largest / weight, self.counts)

    @property
    def total(self) -> int:
        """How many scores there were."""
        return int(self.counts.sum())

    def activity(self, tolerance: float) -> float:
        """Return the share of scores that are not below a tolerance; one inside a bin counts as its upper end."""
        return float(self.counts[~(self.largest < tolerance)].sum()) / max(self.total, 1)

    def __repr__(self) -> str:
        return f"ScoreCounts of {self.total:,} scores in {len(self.bins)} bins"


def _joined(bins: Tensor, largest: Tensor, counts: Tensor) -> ScoreCounts:
    """Return bins once each."""
    own, place = bins.unique(return_inverse=True)
    top = torch.full([len(own)], -torch.inf).scatter_reduce(0, place, largest, "amax")
    return ScoreCounts(own, top, torch.zeros_like(own).index_add(0, place, counts))
