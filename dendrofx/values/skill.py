"""Router skill: how much of what a perfect gate saves does this gate save?

Let a gate send its top share a of the rows to full; `D_g(a)` is the mean loss that is left. A random choice leaves
`D_rand(a) = (1 - a) D(0)` on average, a perfect one `D_oracle(a)`. Skill is the ratio of areas over a in [0, 1]:

    (area D_rand - area D_g) / (area D_rand - area D_oracle)        0 random, 1 oracle, below 0 worse than random

with a percentile interval from bootstrap resamples of the rows (Efron, 1979). It is defined for one site, or at model scope.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

RESAMPLES = 200
# Below this share of the mean loss, what an oracle gains over a random choice is noise.
LEAST_GAIN = 1e-3


@dataclass(frozen=True)
class Skill:
    """Router skill with its 95 % bootstrap interval; `value` is None when the oracle itself gains nothing."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        return "n/a" if self.value is None else f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def router_skill(score: Tensor, loss: Tensor, seed: int = 0, resamples: int = RESAMPLES) -> Skill:
    """Return the skill of a score on rows that were used for nothing else.

    Args:
        score: f32[N], high where the row should go to full.
        loss: f32[N] >= 0, what the light branch costs on each row.
        seed: of the order among equal scores and of the bootstrap.
        resamples: bootstrap resamples; 0 leaves the interval out.

    Example:
        >>> router_skill(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.1, 0.2, 0.3]), resamples=0).value
        1.0
    """
    generator = torch.Generator().manual_seed(seed)
    shuffle = torch.randperm(len(loss), generator=generator)  # equal scores: no order but a random one
    score, loss = score[shuffle].nan_to_num(nan=torch.inf).double(), loss[shuffle].double()
    value = _area_ratio(score, loss)
    if value is None or resamples == 0:
        return Skill(value)
    draws = [torch.randint(len(loss), (len(loss),), generator=generator) for _ in range(resamples)]
    ratios = sorted(r for d in draws if (r := _area_ratio(score[d], loss[d])) is not None)
    if not ratios:
        return Skill(None)
    return Skill(value, ratios[int(0.025 * len(ratios))], ratios[min(int(0.975 * len(ratios)), len(ratios) - 1)])


def _area_ratio(score: Tensor, loss: Tensor) -> float | None:
    total = float(loss.sum())
    if len(loss) < 2 or not 0 < total < float("inf"):
        return None
    chosen, perfect = _area(score, loss), _area(loss, loss)
    if 0.5 - perfect < LEAST_GAIN:
        return None
    return (0.5 - chosen) / (0.5 - perfect)


def _area(order: Tensor, loss: Tensor) -> float:
    """Return the area under the share of loss left, the rows with the highest `order` going to full first (trapezoids)."""
    removed = torch.cat([loss.new_zeros(1), loss[order.argsort(descending=True, stable=True)].cumsum(0)])
    left = 1 - removed / removed[-1]
    return float(torch.trapezoid(left, dx=1.0 / len(loss)))
