"""Repeated rows without branches; the functions of `runtime/repeats.py`, `split_linear.py` and `pairs.py`.

Runs are found and used in every call, however few rows repeat, and a Linear of joined values is always split.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dendrofx.runtime.pairs import pick_products


@dataclass(frozen=True)
class RowRuns:
    """Runs of equal rows; see `runtime.repeats.RowRuns`.

    Attributes:
        first: i64[distinct], the first row of every run.
        run: i64[rows], each row's run.
        distinct: how many; whole: every row is its own run.
        rows: how many.
    """

    first: Tensor
    run: Tensor
    distinct: Any
    rows: Any
    whole: bool = False


@dataclass(frozen=True)
class Moved:
    """From runs to shorter ones, or rows: `index` is i64[target]; None where they are the same."""

    index: Tensor | None


def same_rows(values: list[Tensor]) -> Tensor:
    """Find the rows in which all values equal the row before, bool[rows], bit by bit; the first row equals none."""
    every = torch.arange(values[0].size(0))
    before = (every - 1).clamp_min(0)
    same = every > 0
    for x in values:
        same = same.logical_and(_equal(x, x.index_select(0, before)))
    return same


def _equal(x: Tensor, y: Tensor) -> Tensor:
    """Compare rows, bool[rows]; 0.0 is not -0.0."""
    same = x.eq(y)
    if x.is_floating_point():
        same = same.logical_and(x.reciprocal().eq(y.reciprocal()))
    return same.flatten(1).all(1) if x.dim() > 1 else same


def row_runs(parts: list[Tensor]) -> RowRuns:
    """Return the runs in which all values repeat."""
    same = parts[0]
    for part in parts[1:]:
        same = same.logical_and(part)
    return _runs(same.logical_not())


def _runs(new: Tensor) -> RowRuns:
    """Return the runs that begin where `new`, bool[rows], says."""
    first = new.nonzero().squeeze(1)
    return RowRuns(first, new.to(torch.int64).cumsum(0) - 1, first.size(0), new.size(0))


def all_rows(runs: RowRuns) -> RowRuns:
    """Return runs of one row each, of the same rows."""
    every = torch.arange(runs.rows)
    return RowRuns(every, every, runs.rows, runs.rows, whole=True)


def count_runs(runs: RowRuns) -> Any:  # noqa: ANN401  (a number, or a symbol of one)
    """Count the runs."""
    return runs.distinct


def match_runs(source: RowRuns, target: RowRuns) -> Moved:
    """Return which of the `source` runs each of the `target` runs lies in."""
    if source is target or (source.whole and target.whole):
        return Moved(None)
    return Moved(source.run if target.whole else source.run.index_select(0, target.first))


def distinct_rows(x: Tensor, runs: RowRuns, axis: int) -> Tensor:
    """Return the first row of every run."""
    return x if runs.whole else x.index_select(axis, runs.first)


def expand_runs(x: Tensor, moved: Moved, axis: int) -> Tensor:
    """Give every target run the row of the run that it lies in."""
    return x if moved.index is None else x.index_select(axis, moved.index)


def splits(columns: list[int], moved: list[Moved], axes: int, price: int) -> bool:
    """Split always."""
    return True


def split_linear(
    parts: list[Tensor],
    groups: list[int],
    moved: list[Moved],
    whole: Tensor | None,
    weights: list[Tensor],
    bias: Tensor | None,
    price: int,
) -> Tensor:
    """Map values [runs, ..., columns], joined along the last axis, to [target, ..., out]; see `runtime.split_linear`."""
    del whole, price
    total, begin = None, 0
    for group, way in enumerate(moved):
        own = [x for x, g in zip(parts, groups, strict=True) if g == group]
        joined = own[0] if len(own) == 1 else torch.cat(own, -1)
        width = joined.size(-1)
        product = F.linear(joined, weights[1].narrow(1, begin, width), bias if total is None else None)
        product = expand_runs(product, way, 0)
        total = product if total is None else total + product
        begin += width
    assert total is not None
    return total


def pair_products(left: list[Tensor], right: list[Tensor], pick: Tensor, apart: bool) -> Tensor:
    """Return selected products of the rows of one side with those of the other; see `runtime.pairs`."""
    return pick_products(left, right, pick)


def joined_pairs(*_: object) -> None:
    """Return nothing: products are computed in blocks."""


def sample_runs(values: list[Tensor]) -> RowRuns:
    """Find samples that are equal in all values, anywhere in the batch; see `runtime.repeats.sample_runs`.

    Samples of one weighted sum are compared bit by bit with one of them; those that differ are runs of their own.
    """
    total = torch.zeros([values[0].size(0)], dtype=torch.float64)
    for x in values:
        flat = x.flatten(1).to(torch.float64) if x.dim() > 1 else x.unsqueeze(1).to(torch.float64)
        weights = torch.arange(1, flat.size(1) + 1, dtype=torch.float64).mul(0.7548776662).remainder(1.0).add(0.5)
        total = total * 1.7320508 + (flat * weights).sum(1)
    every = torch.arange(total.size(0))
    ordered, order = total.sort(0)
    begins = ordered.ne(ordered.index_select(0, (every - 1).clamp_min(0))).logical_or(every.eq(0))
    heads = order.index_select(0, begins.nonzero().squeeze(1))
    leader = heads.index_select(0, begins.to(torch.int64).cumsum(0) - 1)
    leader = torch.zeros_like(order).index_copy(0, order, leader)
    same = leader.ne(every)
    for x in values:
        same = same.logical_and(_equal(x, x.index_select(0, leader)))
    runs = _runs(same.logical_not())
    return RowRuns(runs.first, runs.run.index_select(0, torch.where(same, leader, every)), runs.distinct, runs.rows)
