"""Learn then Test by fixed-sequence testing: the furthest step of a path that keeps a budget.

The path is fixed before the test samples are seen, safest step first; the step before it, always full, has no risk and needs no
test. Each step is tested at delta and the walk stops at the first p > delta. A false step is accepted only if the first false one
is, so with probability 1 - delta *every* accepted step keeps the budget, and the user may choose any of them.

Sources: A. Angelopoulos, S. Bates, E. Candes, M. Jordan, L. Lei, "Learn then Test: Calibrating Predictive Algorithms to Achieve
Risk Control", 2021 (fixed-sequence testing, section 2.3); B. Wiens, "A fixed sequence Bonferroni procedure", 2003.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from dendrofx.guarantee.budget import Budget


@dataclass(frozen=True)
class Tested:
    """One tested step.

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
    """Test one step on f64[n] losses, or on f64[n, outputs]: the output that lost most has the largest p-value."""
    sums = (losses if losses.dim() == 2 else losses[:, None]).sum(0).tolist()
    total, n = max(sums), len(losses)
    p = budget.p_value(total, n)
    return Tested(total, n, p, p <= budget.delta, tuple(sums))


def fixed_sequence(steps: Iterable[Tensor], budget: Budget) -> list[Tested]:
    """Test steps in order, up to and with the first that fails.

    Args:
        steps: per step f64[n] losses, or f64[n, outputs], computed as they are asked for.
        budget: the budget.

    Returns:
        The tested steps; all accepted but possibly the last.

    Example:
        >>> [t.accepted for t in fixed_sequence([torch.zeros(299), torch.ones(299)], Budget("flip", 0.01))]
        [True, False]
    """
    return list(walk_steps(steps, budget))


def walk_steps(steps: Iterable[Tensor], budget: Budget) -> Iterator[Tested]:
    """The same one by one, for callers that may stop."""
    for losses in steps:
        tested = tested_step(losses, budget)
        yield tested
        if not tested.accepted:
            return


def why_none(tested: Sequence[Tested], budget: Budget) -> str:
    """Why not even the first step was accepted, and how many samples would have sufficed."""
    if not tested:
        return "there is no step to test: nothing cheaper than the original was found"
    first = tested[0]
    seen = f"the safest step has a mean loss of {first.risk:.4g} on {first.n} test samples (p = {first.p_value:.3g})"
    if first.n < budget.least:
        seen += f"; {first.n} samples can never show {budget}, it takes {budget.least} at zero loss"
    enough = budget.samples_to_show(first.risk)
    if enough is None:
        return f"{seen}; at that risk no number of samples would show {budget}"
    return f"{seen}; at that risk {enough} test samples would have sufficed"
