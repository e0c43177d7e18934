"""p-values against scipy's own exact test, and their validity on risks that are known."""

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from dendrofx import InputError
from dendrofx.guarantee import binomial_p, hoeffding_bentkus_p, least_samples


@pytest.mark.parametrize("n", [1, 17, 299, 2000])
@pytest.mark.parametrize("alpha", [0.001, 0.01, 0.2, 0.7])
@pytest.mark.parametrize("share", [0.0, 0.005, 0.1, 1.0])
def test_the_binomial_tail_is_scipys_exact_test(n: Any, alpha: Any, share: Any) -> None:
    k = round(share * n)
    assert binomial_p(k, n, alpha) == pytest.approx(binomtest(k, n, alpha, alternative="less").pvalue, rel=1e-9)


@pytest.mark.parametrize(
    ("alpha", "delta", "n"), [(0.01, 0.05, 299), (0.05, 0.05, 59), (0.01, 0.01, 459), (0.5, 0.5, 1)]
)
def test_the_least_number_of_samples_is_exactly_enough(alpha: Any, delta: Any, n: Any) -> None:
    assert least_samples(alpha, delta) == n
    for tail in (binomial_p, hoeffding_bentkus_p):
        assert tail(0, n, alpha) <= delta < (tail(0, n - 1, alpha) if n > 1 else 1)


def test_hoeffding_bentkus_by_hand() -> None:
    n, total, alpha = 100, 3.0, 0.1
    mean = total / n
    kl = mean * math.log(mean / alpha) + (1 - mean) * math.log((1 - mean) / (1 - alpha))
    bentkus = math.e * binomtest(3, n, alpha, alternative="less").pvalue
    assert hoeffding_bentkus_p(total, n, alpha) == pytest.approx(min(math.exp(-n * kl), bentkus))
    assert hoeffding_bentkus_p(2.5, n, alpha) <= hoeffding_bentkus_p(3.0, n, alpha)
    assert hoeffding_bentkus_p(50, n, alpha) == 1.0


def test_no_samples_show_nothing() -> None:
    assert binomial_p(0, 0, 0.1) == hoeffding_bentkus_p(0, 0, 0.1) == 1.0


DRAWS = 4000
# P(Bin(4000, delta) > delta * 4000 + 4 sqrt(delta (1 - delta) 4000)) < 1e-4: the chance that this test fails on a valid p-value.
SLACK = 4


@pytest.mark.parametrize("delta", [0.05, 0.2])
@pytest.mark.parametrize("n", [100, 700])
def test_a_risk_at_the_limit_is_rejected_at_most_as_often_as_delta_allows(n: Any, delta: Any) -> None:
    alpha, rng = 0.05, np.random.default_rng(0)
    most = delta * DRAWS + SLACK * math.sqrt(delta * (1 - delta) * DRAWS)
    flips = rng.binomial(n, alpha, DRAWS)
    assert sum(binomial_p(float(k), n, alpha) <= delta for k in flips) <= most
    clipped = rng.beta(0.5, 0.5 * (1 - alpha) / alpha, (DRAWS, n)).sum(1)  # losses in [0, 1] of mean alpha
    assert sum(hoeffding_bentkus_p(float(t), n, alpha) <= delta for t in clipped) <= most


def test_the_exact_tail_is_not_idle() -> None:
    """At a risk of half the limit and 2000 samples the limit is shown nearly always."""
    rng = np.random.default_rng(1)
    assert np.mean([binomial_p(float(k), 2000, 0.02) <= 0.05 for k in rng.binomial(2000, 0.01, 500)]) > 0.95


@pytest.mark.parametrize("given", [(0, 10, 0.0), (0, 10, 1.0), (11, 10, 0.5), (-1, 10, 0.5), (0, -1, 0.5)])
def test_what_cannot_be_is_refused(given: Any) -> None:
    for tail in (binomial_p, hoeffding_bentkus_p):
        with pytest.raises(InputError):
            tail(*given)
