"""p-values of the hypothesis "the risk is above alpha", from the losses of n exchangeable samples.

Both are valid for any distribution of losses in [0, 1] and any n: P(p <= delta) <= delta whenever the risk is above alpha.

    0/1 losses   the exact binomial tail, P(Bin(n, alpha) <= k)
    [0, 1]       Hoeffding-Bentkus: S. Bates, A. Angelopoulos, L. Lei, J. Malik, M. Jordan, "Distribution-Free, Risk-Controlling
                 Prediction Sets", Journal of the ACM 68(6), 2021; used for testing in A. Angelopoulos, S. Bates, E. Candes,
                 M. Jordan, L. Lei, "Learn then Test", 2021
"""

from __future__ import annotations

import math
from collections.abc import Callable

from dendrofx.errors import InputError

# From the sum of n losses, n and alpha to a p-value.
Tail = Callable[[float, int, float], float]


def binomial_p(losses: float, n: int, alpha: float) -> float:
    """Return the exact binomial tail.

    Args:
        losses: how many of the n losses are 1.
        n: samples.
        alpha: the limit of the risk, in (0, 1).

    Returns:
        `P(Bin(n, alpha) <= losses)`; 1 for no samples.

    Example:
        >>> round(binomial_p(0, 299, 0.01), 4)
        0.0495
    """
    _check(losses, n, alpha)
    return _cdf(math.floor(losses + 1e-9), n, alpha) if n else 1.0


def hoeffding_bentkus_p(losses: float, n: int, alpha: float) -> float:
    """Return the smaller of Hoeffding's tail in its relative-entropy form and Bentkus' inequality.

    Args:
        losses: the sum of the n losses, each in [0, 1].
        n: samples.
        alpha: the limit of the risk, in (0, 1).

    Returns:
        `min(exp(-n kl(min(mean, alpha), alpha)), e P(Bin(n, alpha) <= ceil(losses)), 1)`.

    Example:
        >>> round(hoeffding_bentkus_p(0.0, 299, 0.01), 4)
        0.0495
    """
    _check(losses, n, alpha)
    if n == 0:
        return 1.0
    mean = min(losses / n, alpha)
    hoeffding = math.exp(-n * _kl(mean, alpha))
    bentkus = math.e * _cdf(math.ceil(losses - 1e-9), n, alpha)
    return min(hoeffding, bentkus, 1.0)


def least_samples(alpha: float, delta: float) -> int:
    """Return the least n at which losses of zero show a risk of at most alpha: `ceil(ln delta / ln(1 - alpha))`.

    Example:
        >>> least_samples(0.01, 0.05)
        299
    """
    _check(0, 1, alpha)
    if not 0 < delta < 1:
        raise InputError(f"delta must be between 0 and 1, got {delta!r}")
    return math.ceil(math.log(delta) / math.log1p(-alpha) - 1e-12)


def samples_to_show(risk: float, alpha: float, delta: float, tail: Tail) -> int | None:
    """Return the least n at which an observed risk would show the limit alpha; None where no n below 10^8 would."""
    if risk >= alpha:
        return None
    low, high = 1, least_samples(alpha, delta)
    while tail(risk * high, high, alpha) > delta:
        low, high = high, 2 * high
        if high > 10**8:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if tail(risk * middle, middle, alpha) <= delta else (middle, high)
    return high


def _kl(mean: float, alpha: float) -> float:
    """Return the relative entropy of Bernoulli(mean) to Bernoulli(alpha)."""
    low = mean * math.log(mean / alpha) if mean > 0 else 0.0
    return low + ((1 - mean) * math.log((1 - mean) / (1 - alpha)) if mean < 1 else 0.0)


def _check(losses: float, n: int, alpha: float) -> None:
    if not 0 < alpha < 1:
        raise InputError(f"alpha must be between 0 and 1, got {alpha!r}")
    if n < 0 or not -1e-9 <= losses <= n + 1e-9:
        raise InputError(f"{n} losses in [0, 1] cannot sum to {losses!r}")


def _cdf(count: int, n: int, chance: float) -> float:
    """Return `P(Bin(n, chance) <= count)`."""
    from scipy.stats import binom  # takes a second to import, and only certificates need it

    return float(binom.cdf(count, n, chance))
