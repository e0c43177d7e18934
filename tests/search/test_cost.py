"""Counted cost, by hand."""

import pytest

from dendrofx.search.cost import WEIGHT_ROWS, RowMacs

BRANCHES = RowMacs(gate=3, light=10, full=100)


@pytest.mark.parametrize(("activity", "rows", "wanted"), [
    (0.0, 256, (3 * 256 + 10 * 288) / (100 * 288)),  # light alone: the full branch's weights are never read
    (1.0, 256, (3 * 256 + 10 * 288 + 100 * 288) / (100 * 288)),
    (0.5, 2, (3 * 2 + 10 * 34 + 100 * (1 + 32 * 0.75)) / (100 * 34)),  # a call of two rows has a hard one in 3 of 4
    (0.25, 1, (3 + 10 * 33 + 100 * (0.25 + 32 * 0.25)) / (100 * 33)),
    (0.3, 0, 10 * 32 / (100 * 32)),  # no rows, no hard ones
])  # fmt: skip
def test_values_by_hand(activity: float, rows: float, wanted: float) -> None:
    assert WEIGHT_ROWS == 32
    assert BRANCHES.cost(activity, rows) == pytest.approx(wanted)


def test_the_example_of_the_docstring() -> None:
    assert round(RowMacs(gate=0, light=10, full=100).cost(activity=0.05, rows=256), 2) == 0.26


def test_more_hard_rows_cost_more_and_large_calls_share_the_weights() -> None:
    costs = [BRANCHES.cost(a / 10, 64) for a in range(11)]
    assert costs == sorted(costs)
    assert costs[0] < 0.15
    assert costs[-1] > 1
    # a rare hard row makes nearly every large call read the weights, and their share of such a call is small
    assert BRANCHES.cost(0.02, 4096) < BRANCHES.cost(0.02, 128)


def test_free_branches_cost_nothing() -> None:
    assert RowMacs(0, 0, 7).cost(0.0, 64) == 0.0
