"""Runs of equal rows, ways between them, and Linears that are split by columns; eager and scripted."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dendrofx.runtime.pairs import count_pairs, joined_pairs, pair_products
from dendrofx.runtime.repeats import (
    Moved,
    broadcast_runs,
    distinct_rows,
    equals_before,
    expand_runs,
    match_runs,
    row_runs,
    same_rows,
)
from dendrofx.runtime.split_linear import count_split, split_linear
from tests.check import OTHER_GEMM

WAYS = pytest.mark.parametrize("way", [lambda f: f, torch.jit.script], ids=["eager", "scripted"])
NAN, INF = float("nan"), float("inf")
# By what is compared: values, and of every row but the first whether it equals the one before.
ROWS: dict[str, tuple[Tensor, list[int]]] = {
    "floats": (torch.tensor([[1.0, 2], [1, 2], [1, 3], [2, 3], [2, 3]]), [1, 0, 0, 1]),
    "NaN": (torch.tensor([[NAN, 1], [NAN, 1], [1, NAN], [1, NAN], [1, 1], [1, 1]]), [0, 0, 0, 0, 1]),
    "infinite": (torch.tensor([[INF, 1], [INF, 1], [-INF, 1]]), [1, 0]),
    "zeros of two signs": (torch.tensor([[1.0, 0.0], [1, 0.0], [1, -0.0], [1, -0.0], [1, 0.0]]), [1, 0, 1, 0]),
    "zeros of two signs, alone": (torch.tensor([0.0, -0.0, -0.0]), [0, 1]),
    "half": (torch.tensor([[1.0, 2], [1, 2], [1, 3]]).half(), [1, 0]),
    "double": (torch.tensor([[1.0, 2], [1, 2], [1, 3]]).double(), [1, 0]),
    "ids": (torch.tensor([3, 3, 3, 4, 3]), [1, 1, 0, 0]),
    "bools": (torch.tensor([[True, False], [True, False], [False, False]]), [1, 0]),
    "denormal": (torch.tensor([[1e-45, 1], [0, 1], [0, 1], [2e-45, 1]]), [0, 1, 0]),
    "complex": (torch.tensor([[1 + 1j, 2], [1 + 1j, 2], [1 - 1j, 2]]), [1, 0]),
    "with gradients": (torch.tensor([[1.0, 2], [1, 2], [1, 3]]).requires_grad_(), [1, 0]),
    "three axes": (torch.tensor([1.0, 1, 2]).repeat_interleave(6).view(3, 2, 3), [1, 0]),
    "columns": (torch.tensor([[1.0, 7, 7, 1], [2, 7, 7, 2], [3, 7, 8, 3]])[:, 1:3], [1, 0]),
    "no columns": (torch.ones(3, 0), [1, 1]),
    "expanded": (torch.randn(1, 4).expand(3, 4), [1, 1]),
    "expanded NaN": (torch.tensor([[1.0, NAN]]).expand(3, 2), [0, 0]),
    "expanded columns": (torch.tensor([[1.0], [1], [2]]).expand(3, 4), [1, 0]),
    "transposed": (torch.tensor([[1.0, 1, 2], [3, 3, 3]]).t(), [1, 0]),
}


@WAYS
@pytest.mark.parametrize("kind", ROWS)
def test_rows_are_equal_where_their_bits_are_and_none_is_nan(way: Callable[..., Any], kind: str) -> None:
    values, expected = ROWS[kind]
    assert way(equals_before)(values).int().tolist() == expected


@WAYS
def test_runs(way: Callable[..., Any]) -> None:
    same, runs = way(same_rows), way(row_runs)
    a, b = torch.tensor([1, 1, 1, 1, 2, 2, 2, 2]), torch.tensor([1, 1, 2, 2, 2, 2, 2, 2])
    both = same([a, b])
    assert (both.rows, both.repeats) == (8, 5)
    wide = torch.tensor([[0.0, 1], [0, 1], [0, 1], [0, 1], [0, 1], [0, 1], [0, 2], [0, 2]])
    assert same([a, wide, b, b.float()]).same.tolist() == [1, 0, 1, 0, 1, 0, 1]  # columns of two dtypes, and a wide one
    found = runs([same([a]), same([b])])
    assert (found.first.tolist(), found.run.tolist(), found.distinct) == ([0, 2, 4], [0, 0, 1, 1, 2, 2, 2, 2], 3)
    assert runs([both]).run.tolist() == found.run.tolist()
    alike = runs([same([torch.ones(5)])])
    assert (alike.first.tolist(), alike.run.tolist(), alike.distinct) == ([0], [0] * 5, 1)


@WAYS
@pytest.mark.parametrize("values", [[], [5], [1, 2, 3, 4], [1, 1, 2, 3, 4, 5, 6], [1, 2, 1, 2]])
def test_where_few_rows_repeat_every_row_is_its_own_run(way: Callable[..., Any], values: list[int]) -> None:
    x = torch.tensor(values, dtype=torch.long)
    runs = way(row_runs)([way(same_rows)([x])])
    assert runs.distinct == runs.rows == len(values)
    assert way(distinct_rows)(x, runs, 0) is x or torch.equal(way(distinct_rows)(x, runs, 0), x)


@WAYS
def test_other_numbers_of_rows_are_refused(way: Callable[..., Any]) -> None:
    five, four = torch.zeros(5, 2), torch.zeros(4, 2)
    message = r"inputs with repeated rows"
    with pytest.raises(Exception, match=message):
        way(same_rows)([five, four])
    with pytest.raises(Exception, match=message):
        way(row_runs)([same_rows([five]), same_rows([four])])
    with pytest.raises(Exception, match=message):
        way(distinct_rows)(four, row_runs([same_rows([five])]), 0)


@WAYS
@pytest.mark.parametrize("axis", [0, 1])
def test_from_runs_to_rows_and_to_shorter_runs(way: Callable[..., Any], axis: int) -> None:
    a, b = torch.tensor([1, 1, 1, 1, 2, 2, 2, 2]), torch.tensor([1, 1, 2, 2, 3, 3, 4, 4])
    long, short = row_runs([same_rows([a])]), row_runs([same_rows([a]), same_rows([b])])
    x = torch.randn(8, 8)
    first = way(distinct_rows)(x, long, axis)
    assert torch.equal(first, x.index_select(axis, torch.tensor([0, 4])))
    moved = way(match_runs)(long, short)
    assert torch.equal(way(expand_runs)(first, moved, axis), first.index_select(axis, torch.tensor([0, 0, 1, 1])))


@WAYS
def test_one_row_is_broadcast_without_a_copy(way: Callable[..., Any]) -> None:
    x = torch.randn(2, 1, 3)
    got = way(broadcast_runs)(x, Moved(torch.zeros(5, dtype=torch.long), 1, 5), 1)
    assert torch.equal(got, x.expand(2, 5, 3))
    assert got.stride(1) == 0


# ------------------------------------------------------------------------------------------------------- split Linears


def joined(distinct: int, axes: int, rows: int = 12) -> tuple[list[Tensor], list[Moved], Tensor]:
    """Repeated and own values of 40 and 8 columns, how they are expanded, and both joined."""
    more = [3] * (axes - 2)
    run = torch.arange(rows) * distinct // rows
    u, i = torch.randn(distinct, *more, 40), torch.randn(rows, *more, 8)
    moved = [Moved(run, distinct, rows), Moved(run, rows, rows)]
    return [u, i], moved, torch.cat([u.index_select(0, run), i], -1)


@WAYS
@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("distinct", [1, 3, 12])
@pytest.mark.parametrize("price", [0, 64])
@pytest.mark.parametrize("bias", [True, False])
def test_a_split_linear(way: Callable[..., Any], axes: int, distinct: int, price: int, bias: bool) -> None:
    (u, i), (mu, mi), x = joined(distinct, axes)
    weight, b = torch.randn(7, 48) / 7, torch.randn(7) if bias else None
    split = way(split_linear)
    wanted = F.linear(x, weight, b)
    for whole in (None, x):
        got = split([u, i], [0, 1], [mu, mi], whole, [weight] * 2, b, price)
        torch.testing.assert_close(got, wanted, **OTHER_GEMM)
    apart = split([i, u[..., :10], i, u[..., 10:]], [1, 0, 1, 0], [mu, mi], None, *_interleaved(weight), b, price)
    doubled = torch.cat([x, x[..., 40:]], -1)
    torch.testing.assert_close(apart, F.linear(doubled, torch.cat([weight, weight[:, 40:]], 1), b), **OTHER_GEMM)
    if distinct == 12:
        assert torch.equal(got, wanted)


def _interleaved(weight: Tensor) -> tuple[list[Tensor]]:
    """The weights for [i, first ten of u, i, rest of u]: in this order, and by group."""
    u, i = weight[:, :40], weight[:, 40:]
    return ([torch.cat([i, u[:, :10], i, u[:, 10:]], 1), torch.cat([u, i, i], 1)],)


def test_what_a_split_linear_executes() -> None:
    (u, i), moved, _ = joined(3, 2)
    runs = row_runs([same_rows([moved[0].index])])
    y = torch.zeros(12, 7)
    assert count_split([u, i], [0, 1], moved, y, 0, runs, 0) == [3 * 40 * 7, 12 * 40 * 7]
    assert count_split([u, i], [0, 1], moved, y, 0, runs, 1) == [12 * 8 * 7, 12 * 8 * 7]
    assert count_split([u, i], [0, 1], moved, y, 64, runs, 0) == [12 * 40 * 7, 12 * 40 * 7]


# --------------------------------------------------------------------------------------------------- products of pairs


@WAYS
@pytest.mark.parametrize("distinct", [1, 3, 12])
@pytest.mark.parametrize("apart", [True, False])
def test_products_of_pairs(way: Callable[..., Any], distinct: int, apart: bool) -> None:
    """Of two rows of the user, and one of the item, which also stands beside the products."""
    run = torch.arange(12) * distinct // 12
    user, item = torch.randn(distinct, 2, 5), torch.randn(12, 5)
    every = user.index_select(0, run)
    x = torch.cat([every, item.unsqueeze(1)], 1)
    products = torch.bmm(x, x.transpose(1, 2)).flatten(1)
    moved = [Moved(run, distinct, 12), Moved(run, 12, 12)]
    pick = torch.tensor([3, 6, 7])
    whole = way(joined_pairs)([item, user[:, 0]], [1, 0], moved, [every, item], [], pick, 1, apart)
    blocks = [
        way(pair_products)([user], [], torch.tensor([2]), apart),
        way(pair_products)([item], [every], torch.tensor([0, 1]), apart),
    ]
    assert [b.shape for b in blocks] == [(distinct, 1), (12, 2)]
    if apart:
        assert whole is None
        found = torch.cat([blocks[0].index_select(0, run), blocks[1]], 1)
        torch.testing.assert_close(found, products[:, pick], **OTHER_GEMM)
    else:
        assert torch.equal(whole, torch.cat([item, products[:, pick], every[:, 0]], 1))
    runs = row_runs([same_rows([run])])
    executed = 2 * 2 * 5 * distinct + 2 * 5 * 12 if apart else 9 * 5 * 12
    assert way(count_pairs)([20, 10], [0, 1], moved, 45, apart, runs) == [executed, 9 * 5 * 12]
