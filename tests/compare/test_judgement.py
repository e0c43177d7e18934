"""What is a tie, and what a budget comes to, of figures made by hand; the sentences about them are in the tests of the verdict."""

from dataclasses import dataclass, replace

import pytest

from dendrofx.compare.judgement import Judgement, judged
from dendrofx.compare.quality import Quality


@dataclass(frozen=True)
class Ran:
    ms: float | None
    quality: Quality


def quality(mean: float, loss: float | None = None) -> Quality:
    return Quality(None, None, None, None, mean, 0.0, 0.0, None, loss)


def judgement(ms: float, again: float = 1.0, rival: float | None = None) -> Judgement:
    """Of a module that keeps 1 %, beside an original of 10 ms."""
    other = None if rival is None else Ran(rival, quality(0.005))
    return judged(Ran(ms, quality(0.005)), 10.0, 0.01, again=again, rival=other)


@pytest.mark.parametrize(("again", "paces"), [(1.0, ("faster", "tie", "slower")), (0.9, ("tie", "tie", "tie"))])
def test_differences_within_what_the_original_differs_from_itself_are_ties(
    again: float, paces: tuple[str, ...]
) -> None:
    assert tuple(judgement(ms, again).pace for ms in (9.3, 10.0, 10.7)) == paces
    assert tuple(judgement(5.0, again, 5.0 * ms / 10).rival for ms in (9.3, 10.0, 10.7)) == paces


def test_a_certified_budget_is_judged_in_its_own_metric() -> None:
    main = Ran(5.0, quality(0.3, loss=0.005))
    found = judged(main, 10.0, 0.01, certified=True, rival=Ran(2.0, quality(0.001, 0.02)), random=quality(0.0, 0.005))
    assert (found.kept, found.rival, found.gate, found.fails) == ("kept", "misses", "tie", "")
    assert judged(replace(main, quality=quality(0.001, 0.02)), 10.0, 0.01, certified=True).kept == "misses"
    assert judged(main, 10.0, 0.01, certified=False).fails == "its budget is not certified"
    assert judged(Ran(5.0, quality(float("nan"))), 10.0, 0.01).kept == "misses"
