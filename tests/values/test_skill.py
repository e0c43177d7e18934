"""Router skill: 1 for the oracle, 0 for chance, negative for worse, and no value where nothing can be gained."""

import math

import pytest
import torch

from dendrofx.values.skill import LEAST_GAIN, Skill, router_skill


def test_the_oracle_has_skill_1() -> None:
    loss = torch.rand(200) ** 3
    assert router_skill(loss, loss) == Skill(1.0, 1.0, 1.0)
    assert router_skill(loss.log() * 5, loss, resamples=0).value == pytest.approx(1.0)  # the order is all that counts


def test_an_inverted_oracle_is_as_far_below_chance() -> None:
    loss = torch.rand(200) ** 3
    assert router_skill(-loss, loss, resamples=0).value == pytest.approx(-1.0)


def test_chance_has_skill_about_0() -> None:
    loss = torch.rand(2000) ** 3
    values = [router_skill(torch.rand(2000), loss, resamples=0).value or 0.0 for _ in range(20)]
    assert abs(sum(values) / 20) < 0.03
    assert max(map(abs, values)) < 0.15


def test_a_hand_computed_value() -> None:
    # left after 0..3 rows: chosen 1, 5/6, 1/2, 0; perfect 1, 1/2, 1/6, 0. Areas 11/18 and 7/18; random 1/2.
    skill = router_skill(torch.tensor([3.0, 2.0, 1.0]), torch.tensor([1.0, 2.0, 3.0]), resamples=0)
    assert skill.value == pytest.approx((1 / 2 - 11 / 18) / (1 / 2 - 7 / 18))
    skill = router_skill(torch.tensor([2.0, 1.0, 3.0]), torch.tensor([1.0, 2.0, 3.0]), resamples=0)
    assert skill.value == pytest.approx((1 / 2 - 8 / 18) / (1 / 2 - 7 / 18))


def test_the_interval_contains_the_value_and_narrows() -> None:
    def measured(n: int) -> tuple[float, float, float]:
        loss = torch.rand(n) ** 2
        skill = router_skill(loss + torch.rand(n), loss)
        assert skill.value is not None
        assert skill.low is not None
        assert skill.high is not None
        return skill.value, skill.low, skill.high

    for n in (30, 1000):
        value, low, high = measured(n)
        assert low < value < high
    widths = [high - low for _, low, high in (measured(30), measured(1000))]
    assert widths[1] < 0.5 * widths[0]


def test_equal_scores_have_no_order_of_their_own() -> None:
    loss = torch.arange(1.0, 401.0)
    for ordered in (loss, loss.flip(0)):  # a stable sort alone would give 1 and -1
        values = [router_skill(torch.ones(400), ordered, seed, 0).value or 0.0 for seed in range(20)]
        assert abs(sum(values) / 20) < 0.05
        assert max(map(abs, values)) < 0.3


def test_a_score_of_two_levels() -> None:
    loss = torch.cat([torch.zeros(90), torch.ones(10)])
    assert router_skill(loss, loss, resamples=0).value == pytest.approx(1.0)
    half = torch.cat([torch.zeros(50), torch.ones(50)])
    values = [router_skill(half, loss, seed, 0).value or 0.0 for seed in range(50)]
    assert sum(values) / 50 == pytest.approx((0.5 - 0.25) / (0.5 - 0.05), abs=0.05)  # a straight line to 0 at one half


@pytest.mark.parametrize("loss", [[0.5] * 50, [0.0] * 50, [1.0], [], [math.nan] * 50], ids=str)
def test_no_value_where_an_oracle_gains_nothing(loss: list[float]) -> None:
    skill = router_skill(torch.rand(len(loss)), torch.tensor(loss))
    assert skill == Skill(None, None, None)
    assert str(skill) == "n/a"


def test_gains_below_the_noise_are_none() -> None:
    steps = torch.linspace(-1, 1, 500)
    assert router_skill(steps, 1 + 2 * LEAST_GAIN * steps).value is None
    assert router_skill(steps, 1 + 20 * LEAST_GAIN * steps).value == pytest.approx(1.0)


def test_nan_scores_go_to_full_first() -> None:
    loss = torch.tensor([5.0, 1.0, 2.0, 3.0])
    assert router_skill(torch.tensor([math.nan, 1.0, 2.0, 3.0]), loss, resamples=0).value == pytest.approx(1.0)


def test_the_seed_decides_the_interval() -> None:
    loss = torch.rand(100)
    score = loss + torch.rand(100)
    assert router_skill(score, loss, 3) == router_skill(score, loss, 3)
    assert router_skill(score, loss, 3) != router_skill(score, loss, 4)
    assert router_skill(score, loss, 3).value == pytest.approx(router_skill(score, loss, 4).value)


def test_text() -> None:
    assert str(Skill(0.512, 0.4, 0.631)) == "0.51 [0.40, 0.63]"
