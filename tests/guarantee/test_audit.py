"""The e-process: alarms while a certificate holds, and how soon it finds one that does not."""

from typing import Any

import pytest
import torch

from dendrofx import Certificate, audit
from dendrofx.guarantee.audit import fewest

CERTIFICATE = Certificate(
    "flip", None, 0.02, 0.05, 300, 0.0, 0.002, "binomial", 1, 1, {"model": 0.1}, 0.8, "m", "n", "i", "0", "2", "cpu"
)


def losses(mean: Any, count: Any, seed: Any) -> Any:
    return (torch.rand(count, generator=torch.Generator().manual_seed(seed)) < mean).double()


def test_alarms_are_at_most_delta_while_it_holds() -> None:
    """Easy samples lose exactly what is allowed, looked at after each of 2000 rows, 300 times; P(more than 30 of 300) < 1e-4."""
    broken = sum(audit(losses(0.02 / 0.8, 2000, seed), CERTIFICATE, 0.8).answer == "broken" for seed in range(300))
    assert broken <= 30


def test_several_outputs_alarm_as_rarely_and_one_that_breaks_is_found() -> None:
    def pair(means: Any, seed: Any) -> Any:
        return torch.stack([losses(mean, 2000, 1000 * i + seed) for i, mean in enumerate(means)], 1)

    broken = sum(audit(pair((0.025, 0.025), seed), CERTIFICATE, 0.8).answer == "broken" for seed in range(100))
    assert broken <= 14  # P(more than 14 of 100 at 0.05) < 1e-3
    found = [audit(pair((0.0, 0.1), seed), CERTIFICATE, 0.8) for seed in range(20)]
    assert all(a.answer == "broken" for a in found)
    assert (found[0].rows, found[0].mean) == (2000, pytest.approx(0.1, abs=0.02))
    ones, zeros = torch.ones(20), torch.zeros(20)  # the wealth is the bettors' mean: the largest would alarm too often
    both, alone = audit(torch.stack([ones, zeros], 1), CERTIFICATE).e_value, audit(ones, CERTIFICATE).e_value
    assert alone / 2 < both < 0.51 * alone
    assert audit(torch.zeros(0, 2), CERTIFICATE).answer == "too few rows"


def test_a_broken_one_is_found() -> None:
    answers = [audit(losses(0.1, 2000, seed), CERTIFICATE, 0.8) for seed in range(50)]
    assert all(a.answer == "broken" for a in answers)
    assert sorted(a.at for a in answers)[25] < 400


def test_too_few_rows_say_so() -> None:
    few = fewest(0.02 / 0.8, 20)
    assert audit(torch.zeros(few - 1), CERTIFICATE, 0.8).answer == "too few rows"
    assert audit(torch.zeros(few), CERTIFICATE, 0.8).answer == "not shown broken"
    assert audit(torch.ones(few), CERTIFICATE, 0.8).answer == "broken"
    assert audit([], CERTIFICATE, 0.8).answer == "too few rows"


def test_stakes_look_at_the_past_alone() -> None:
    """The wealth after t rows does not depend on what comes later."""
    seen = losses(0.2, 50, 3)
    wealth = [audit(seen[:t], CERTIFICATE, 0.8).e_value for t in range(1, 50)]
    other = torch.cat([seen[:25], 1 - seen[25:]])
    assert [audit(other[:t], CERTIFICATE, 0.8).e_value for t in range(1, 26)] == wealth[:25]


def test_few_easy_samples_cannot_break_it() -> None:
    assert audit(torch.ones(100), CERTIFICATE, easy_share=0.01).answer == "not shown broken"


def test_samples_that_went_to_full_count_as_kept() -> None:
    """Without a share, losses are of all picked samples, and held against alpha itself."""
    assert audit(losses(0.02, 2000, 1), CERTIFICATE).allowed == 0.02
    broken = sum(audit(losses(0.02, 1000, seed), CERTIFICATE).answer == "broken" for seed in range(200))
    assert broken <= 20  # P(more than 20 of 200 at 0.05) < 1e-3
