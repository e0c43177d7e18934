"""Fixed-sequence testing: the furthest point of a path that keeps a budget.

The path is fixed before the test samples are seen, safest point first; the point before it, always full, has no risk and needs no
test. Each point is tested at delta and the walk stops at the first that fails. A false point is accepted only if the first false
one is, so with probability 1 - delta *every* accepted point keeps the budget, and the user may choose any of them. A walk with
several starts has as many chances to pass a point that it should not: each takes its part of delta.

Sources: A. Angelopoulos, S. Bates, E. Candes, M. Jordan, L. Lei, "Learn then Test: Calibrating Predictive Algorithms to Achieve
Risk Control", 2021 (fixed-sequence testing, section 2.3; from several starts, section 3.2); B. Wiens, "A fixed sequence Bonferroni
procedure", 2003.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from torch import Tensor

from dendrofx.guarantee.budget import Budget


class Outcome(Protocol):
    """What a test says about a point."""

    @property
    def accepted(self) -> bool:
        """Whether the point is shown to keep the budget."""


Point = TypeVar("Point")
Result = TypeVar("Result", bound=Outcome)


def fixed_sequence(
    path: Sequence[Point], test: Callable[[Point], Result], starts: Sequence[int] = (0,)
) -> Iterator[Result]:
    """Yield the outcomes of a path's points, in order, up to and with the first that fails; the caller may stop at any.

    Args:
        path: points, safest first.
        test: tests one point, on samples that the path was fixed without.
        starts: places to start at, descending. A later one is used where the point at the one before it failed, up to that one.

    Example:
        >>> test = partial(tested_step, budget=Budget("flip", 0.01))
        >>> [t.accepted for t in fixed_sequence([torch.zeros(299), torch.ones(299)], test)]
        [True, False]
    """
    end = len(path)
    for start in starts:
        passed = False
        for point in path[start:end]:
            outcome = test(point)
            yield outcome
            if not outcome.accepted:
                break
            passed = True
        if passed:
            return
        end = start


@dataclass(frozen=True)
class Tested:
    """One tested point.

    Attributes:
        losses: their sum; of several outputs the largest.
        n: samples.
        p_value: of "the risk is above the limit"; of several outputs the largest, which is a p-value of "one of the risks is".
        accepted: whether the budget is shown to hold.
        by_output: the sum of the losses of each output.
    """

    losses: float
    n: int
    p_value: float
    accepted: bool
    by_output: tuple[float, ...] = ()

    @property
    def risk(self) -> float:
        """The mean loss."""
        return self.losses / max(self.n, 1)


def tested_step(losses: Tensor, budget: Budget) -> Tested:
    """Test f64[n] losses, or f64[n, outputs]: the output that lost most has the largest p-value."""
    sums = (losses if losses.dim() == 2 else losses[:, None]).sum(0).tolist()
    total, n = max(sums), len(losses)
    p = budget.p_value(total, n)
    return Tested(total, n, p, p <= budget.delta, tuple(sums))


def why_none(first: Tested | None, budget: Budget) -> str:
    """Say why not even the first point was accepted, and how many samples would have sufficed."""
    if first is None:
        return "there is no step to test: nothing cheaper than the original was found"
    seen = f"the safest step has a mean loss of {first.risk:.4g} on {first.n} test samples (p = {first.p_value:.3g})"
    enough = budget.samples_to_show(first.risk)
    if first.n < budget.least:
        seen += f"; {first.n} samples can never show {budget}, it takes {budget.least} at zero loss"
        if enough == budget.least:  # said just now
            return seen
    if enough is None:
        return f"{seen}; at that risk no number of samples would show {budget}"
    return f"{seen}; at that risk {enough} test samples would have sufficed"
