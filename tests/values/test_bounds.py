"""Bounds: the strongest of one expression is said and checked, and refuses all that the others did."""

import pytest
import torch

from dendrofx.values.bounds import strongest
from dendrofx.values.guards import broken

ROWS: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
    (("i.size(1) > 2", "i.size(1) > 3", "i.size(1) > 23"), ("i.size(1) > 23",)),
    (("i.size(1) > 23", "i.size(1) > 2", "i.size(0) > 2"), ("i.size(1) > 23", "i.size(0) > 2")),
    (("x.size(0) <= 9", "x.size(0) < 9", "x.size(0) <= 12"), ("x.size(0) < 9",)),
    (("x.size(0) >= 4", "x.size(0) > 4", "x.size(0) <= 9"), ("x.size(0) > 4", "x.size(0) <= 9")),
    (("x.size(0) > 3", "x.size(0) >= 4"), ("x.size(0) >= 4",)),
    (("4 < x.size(0)", "x.size(0) > 4", "3 < x.size(0)"), ("4 < x.size(0)",)),
    (("x.size(0) != 3", "x.size(0) > 3"), ("x.size(0) > 3",)),
    (("x.size(0) != 3", "x.size(0) >= 3"), ("x.size(0) != 3", "x.size(0) >= 3")),
    (("x.size(0) == 5", "x.size(0) > 3", "x.size(0) != 4"), ("x.size(0) == 5",)),
    (("x.size(0) == 5", "x.size(0) > 7"), ("x.size(0) == 5", "x.size(0) > 7")),  # both: no call is taken
    (("a.size(0) + b.size(0) > 2", "a.size(0) + b.size(0) > 8"), ("a.size(0) + b.size(0) > 8",)),
    (("x.size(0) % 7 != 0", "x.size(0) % 7 != 1"), ("x.size(0) % 7 != 0", "x.size(0) % 7 != 1")),
    (("2 <= x.size(0) <= 8", "x.size(0) <= 9"), ("2 <= x.size(0) <= 8", "x.size(0) <= 9")),
]


@pytest.mark.parametrize(("guards", "left"), ROWS)
def test_a_bound_that_another_implies_is_left_out(guards: tuple[str, ...], left: tuple[str, ...]) -> None:
    assert strongest(guards) == left
    for size in range(1, 30):
        given = {name: torch.empty(size, size) for name in "abix"}
        assert (broken(guards, given) is None) == (broken(left, given) is None)
