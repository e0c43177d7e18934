"""Drift: does a certificate still hold in production? An e-process on the losses of a few samples, recomputed in full.

The wealth of a bettor against "the risk is at most alpha",

    E_t = product over i <= t of (1 + lambda_i (L_i - alpha)),    lambda_i in [0, 1 / alpha], chosen before L_i is seen,

is a nonnegative supermartingale as long as it holds; so it ever exceeds 1 / delta with probability at most delta, however often
one looks (Ville's inequality). L_i is the loss of a sample that was picked without looking at it; of one that went to an exact full
model it is 0, so only easy ones need to be recomputed. Who logs easy samples alone passes their share: their losses are then held
against alpha / share, which is as safe as the share is right; an estimate of it from few samples is not.

Of several outputs each has a bettor of its own, and the wealth is their mean, which is as fair a game as each of them.

Source: I. Waudby-Smith and A. Ramdas, "Estimating means of bounded random variables by betting", Journal of the Royal Statistical
Society B 86(1), 2024; A. Ramdas and others, "Game-theoretic statistics and safe anytime-valid inference", Statistical Science
38(4), 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dendrofx.errors import InputError
from dendrofx.graph.show import first_line
from dendrofx.guarantee.certificate import Certificate
from dendrofx.values.measure import largest_mean

# The largest stake, as a share of the one that a loss of 0 would ruin.
BOLDEST = 0.5
Answer = Literal["broken", "not shown broken", "too few rows"]


@dataclass(frozen=True)
class Audit:
    """What the losses say.

    Attributes:
        answer: "broken": the wealth passed 1 / delta, which happens with probability at most delta while the certificate holds.
            "not shown broken". "too few rows": not even losses of 1 alone could have shown it with so many.
        rows: how many losses.
        mean: of the losses; of several outputs the largest.
        allowed: what it may be: alpha, or alpha / easy share.
        e_value: the largest wealth so far.
        alarm: 1 / delta.
        at: rows after which the alarm went off, None if it did not.

    Example:
        >>> dendrofx.audit(torch.zeros(400), certificate).answer
    """

    answer: Answer
    rows: int
    mean: float
    allowed: float
    e_value: float
    alarm: float
    at: int | None

    def __str__(self) -> str:
        seen = f"{self.rows} rows, mean loss {self.mean:.4g}, allowed {self.allowed:.4g}"
        return f"{self.answer}: {seen}; largest e-value {self.e_value:.3g}, alarm at {self.alarm:g}"


def audit(losses: Tensor | Sequence[float], certificate: Certificate, easy_share: float = 1.0) -> Audit:
    """Test a certificate on losses, in the order in which they came.

    Args:
        losses: f[t] in [0, 1], or of several outputs f[t, outputs], such as `Shadow` returns; of samples that were picked without
            looking at them.
        certificate: the one to test.
        easy_share: where only samples that took the light branch are among the losses, their share of all samples.

    Raises:
        InputError: losses that are no losses, or no certificate.

    Example:
        >>> dendrofx.audit(torch.cat(losses), certificate).answer
        'not shown broken'
    """
    seen = _checked(losses, certificate, easy_share)
    allowed, alarm = certificate.alpha / easy_share, 1 / certificate.delta
    mean = largest_mean(seen) if len(seen) else 0.0
    if allowed >= 1:  # so few rows are easy that they cannot break it
        return Audit("not shown broken", len(seen), mean, allowed, 1.0, alarm, None)
    wealth = torch.stack([_wealth(of, allowed) for of in seen.unbind(1)]).mean(0)
    largest = max(1.0, float(wealth.max())) if len(wealth) else 1.0
    at = int((wealth >= alarm).nonzero()[0]) + 1 if largest >= alarm else None
    if at is not None:
        return Audit("broken", len(seen), mean, allowed, largest, alarm, at)
    answer: Answer = "too few rows" if len(seen) < fewest(allowed, alarm) else "not shown broken"
    return Audit(answer, len(seen), mean, allowed, largest, alarm, None)


def _checked(losses: object, certificate: object, easy_share: object) -> Tensor:
    """Return losses as f64[t, outputs], or raise `InputError` for what is no loss, no certificate or no share."""
    if not isinstance(certificate, Certificate):
        raise InputError(
            f"an audit tests a certificate, got {certificate!r}: pass plan.certificate of a module that was transformed with"
            " budget=, which is None where the budget was not shown; plan.refusal says why"
        )
    try:
        seen = torch.as_tensor(losses, dtype=torch.float64)
        seen = seen if seen.dim() == 2 else seen.reshape(-1, 1)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"losses of an audit are numbers in [0, 1], one per sample: {first_line(error)}") from error
    if bool((~((seen >= 0) & (seen <= 1))).any()):
        raise InputError("losses of an audit must be in [0, 1] and not NaN")
    if not isinstance(easy_share, int | float) or not 0 < easy_share <= 1:
        raise InputError(f"easy_share must be above 0 and at most 1, got {easy_share!r}")
    return seen


def fewest(allowed: float, alarm: float) -> int:
    """Return how many rows it takes to pass the alarm if every loss were 1."""
    wealth, rows = 1.0, 0
    ones = _stakes([1.0] * 10_000, allowed)
    while wealth < alarm and rows < len(ones):
        wealth *= 1 + ones[rows] * (1 - allowed)
        rows += 1
    return rows


def _wealth(losses: Tensor, allowed: float) -> Tensor:
    """Return f64[t], the wealth of one bettor after each of f64[t] losses."""
    stakes = torch.tensor(_stakes(losses.tolist(), allowed), dtype=torch.float64)
    return (1 + stakes * (losses - allowed)).cumprod(0)


def _stakes(losses: Sequence[float], allowed: float) -> list[float]:
    """Return stakes, each from the losses before it.

    A stake is (mean - m) / (variance + (mean - m)^2), between 0 and half of 1 / m: the growth-optimal one to second order
    ("approximate GRAPA"). The first is made as if one loss of twice the allowed mean had been seen.
    """
    count, total, squares = 1.0, 2 * allowed, allowed * 1.0
    found = []
    for loss in losses:
        mean = total / count
        variance = max(squares / count - mean * mean, 1e-6)
        gain = mean - allowed
        found.append(min(max(gain / (variance + gain * gain), 0.0), BOLDEST / allowed))
        count, total, squares = count + 1, total + loss, squares + loss * loss
    return found
