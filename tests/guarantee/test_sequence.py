"""Fixed-sequence testing: where it stops, what it says, and its guarantee on risks that are known."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from dendrofx import Budget
from dendrofx.guarantee import sequence
from dendrofx.guarantee.sequence import fixed_sequence, why_none
from dendrofx.guarantee.settings import Setting, fastest, walk

BUDGET = Budget("flip", 0.05, 0.9)


def walked(steps: Sequence[Tensor], budget: Budget = BUDGET) -> list[sequence.Tested]:
    return list(fixed_sequence(steps, partial(sequence.tested_step, budget=budget)))


def test_it_stops_at_the_first_failure_and_asks_for_no_more() -> None:
    asked = []

    def test(flips: int) -> sequence.Tested:
        asked.append(flips)
        return sequence.tested_step(torch.tensor([1.0] * flips + [0.0] * (400 - flips)), BUDGET)

    assert [t.accepted for t in fixed_sequence((0, 1, 60, 0), test)] == [True, True, False]
    assert asked == [0, 1, 60]


def test_every_accepted_step_is_right_as_often_as_promised() -> None:
    """Risks rise along the path and pass the limit at step 6; a walk is wrong when it accepts that step or a later one.

    Walks are wrong with probability at most 0.1; of 2000, 254 or more would be wrong in fewer than one run in ten thousand.
    """
    risks, n, walks, rng = np.linspace(0.0, 0.1, 12), 300, 2000, np.random.default_rng(0)
    first = int(np.argmax(risks > BUDGET.limit))
    wrong = 0
    for _ in range(walks):
        uniform = rng.random(n)  # one set of samples for all steps, as it is in life
        tested = walked([torch.from_numpy((uniform < r).astype(float)) for r in risks])
        wrong += sum(t.accepted for t in tested) > first
    assert wrong <= 0.1 * walks + 4 * math.sqrt(0.1 * 0.9 * walks)


def test_several_outputs_are_tested_by_the_one_that_lost_most() -> None:
    """Two outputs of one step, one or both of whose risks are the limit: wrong at most as often as promised."""
    losses = torch.tensor([[1.0, 0.0]] * 30 + [[0.0, 0.0]] * 270, dtype=torch.float64)
    (tested,) = walked([losses])
    assert (tested.losses, tested.by_output, tested.accepted) == (30.0, (30.0, 0.0), False)
    assert tested.p_value == BUDGET.p_value(30.0, 300)
    assert walked([losses.flip(1)])[0].p_value == tested.p_value
    rng = np.random.default_rng(2)
    for risks in ((BUDGET.limit, 0.0), (0.01, BUDGET.limit), (BUDGET.limit, BUDGET.limit)):
        steps = (torch.from_numpy((rng.random((300, 2)) < np.array(risks)).astype(float)) for _ in range(2000))
        wrong = sum(walked([step])[0].accepted for step in steps)
        assert wrong <= 200 + 4 * math.sqrt(0.1 * 0.9 * 2000)


def test_a_path_that_is_not_monotone_is_safe_too() -> None:
    """A step far above the limit stands first: it is accepted hardly ever, and nothing after it without it."""
    rng = np.random.default_rng(1)
    accepted = 0
    for _ in range(500):
        steps = [torch.from_numpy((rng.random(300) < r).astype(float)) for r in (0.2, 0.0)]
        accepted += sum(t.accepted for t in walked(steps))
    assert accepted == 0


def test_why_nothing_was_accepted() -> None:
    budget = Budget("flip", 0.01)
    (few,) = walked([torch.zeros(100)], budget)
    assert "100 samples can never show flip at most 1 %, 95 % confidence, it takes 299 at zero loss" in why_none(
        few, budget
    )
    assert "would have sufficed" not in why_none(few, budget)  # it is said once
    (some,) = walked([torch.tensor([1.0] * 3 + [0.0] * 397)], budget)
    assert "at that risk " in why_none(some, budget)
    (bad,) = walked([torch.ones(400)], budget)
    assert "at that risk no number of samples would show" in why_none(bad, budget)
    assert "nothing cheaper than the original was found" in why_none(None, budget)


def test_a_front_ends_with_the_first_setting_that_fails() -> None:
    """What is certified walks by the same rule: nothing behind a failure is tested, however safe it would be."""
    asked: list[int] = []

    def test(setting: Setting) -> Setting:
        asked.append(setting.source)
        losses = torch.tensor([1.0] * setting.source + [0.0] * (400 - setting.source))
        return replace(setting, tested=sequence.tested_step(losses, BUDGET), easy_share=0.5)

    path = [Setting(str(flips), {}, 0.0, 0.5, 0.0, flips) for flips in (0, 60, 1)]
    walked = walk(path, test, nullcontext())
    assert [s.accepted for s in walked] == [True, False]
    assert [s.easy_share for s in walked] == [0.5, 0.5]
    assert asked == [0, 60]
    assert fastest(walked, BUDGET) is walked[0]


def test_a_walk_with_several_starts_goes_back_only_where_the_first_fails() -> None:
    def asked(starts: Sequence[int], fails: Sequence[int]) -> list[int]:
        seen: list[int] = []

        def test(point: int) -> sequence.Tested:
            seen.append(point)
            return sequence.Tested(0.0, 1, 0.0, point not in fails)

        list(fixed_sequence(range(6), test, starts))
        return seen

    assert asked((3, 0), [5]) == [3, 4, 5]
    assert asked((3, 0), [3, 1]) == [3, 0, 1]
    assert asked((3, 0), [3]) == [3, 0, 1, 2]
    assert asked((0,), [0]) == [0]
