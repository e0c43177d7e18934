"""The run time of repeated rows: plain functions that TorchScript compiles.

A row that equals the one before it takes that row's result. Rows of one value that are equal follow each other in *runs*; a region
of the graph that reads such values alone computes the first row of every run, and is expanded where other values join.

    same  = same_rows([user])              which rows equal the one before; once per call
    runs  = row_runs([same])               where runs begin, and each row's run
    first = distinct_rows(user, runs, 0)   the first row of every run
    moved = match_runs(runs, all_rows)     from runs to rows, or to the shorter runs of another value
    y     = expand_runs(h, moved, 0)       every row's result

Rows are equal when all of their bits are, so 0.0 is not -0.0 (1 / x tells them apart), and a row with a NaN is equal to none. Where
few rows repeat, runs of one row each are used for all: then every function here hands on what it is given, and the call computes
what the original computes, operation by operation.
"""

from typing import List, NamedTuple

import torch
from torch import Tensor


class SameRows(NamedTuple):
    """Which rows equal the one before: `same` is bool[max(rows - 1, 0)], `repeats` how many of it are true."""

    same: Tensor
    rows: int
    repeats: int


class RowRuns(NamedTuple):
    """Runs of equal rows.

    `first` is i64[distinct], the first row of every run, ascending; `run` is i64[rows], each row's run. Where `distinct` equals
    `rows`, every row is its own run, and the two have no content.
    """

    first: Tensor
    run: Tensor
    distinct: int
    rows: int


class Moved(NamedTuple):
    """From `source` runs to `target` shorter ones, or rows: `index` is i64[target]. Where the two are equal it has no content."""

    index: Tensor  # type: ignore[assignment]  # hides tuple.index
    source: int
    target: int


def same_rows(values: List[Tensor]) -> SameRows:
    """Find the rows in which all values equal the row before.

    Args:
        values: [rows, ...] each, of one row count. One that is expanded from a single row is not read beyond that row.

    Raises:
        RuntimeError: they have other numbers of rows.
    """
    rows = values[0].size(0) if values[0].dim() > 0 else 0
    for x in values:
        if x.dim() == 0 or x.size(0) != rows:
            raise RuntimeError(f"inputs with repeated rows have one row per sample: {values[0].size()} and {x.size()}")
    if rows < 2 or all_change(values[0]):
        return SameRows(torch.zeros([max(rows - 1, 0)], dtype=torch.bool), rows, 0)
    wide = side_by_side(values)
    same = equals_before(wide[0])
    repeats = int(same.sum().item())
    for x in wide[1:]:
        if repeats > 0:
            same = same.logical_and(equals_before(x))
            repeats = int(same.sum().item())
    return SameRows(same, rows, repeats)


def all_change(x: Tensor) -> bool:
    """Tell by one column whether no row equals the one before, as in most calls without repeats; x has two rows or more."""
    if x.stride(0) == 0 or x.numel() == 0 or x.is_complex():
        return False
    column = x.detach()
    while column.dim() > 1:
        column = column.select(1, 0)
    return torch.unique_consecutive(column).size(0) == x.size(0)  # type: ignore[no-any-return]


def side_by_side(values: List[Tensor]) -> List[Tensor]:
    """Join single columns of one dtype, ids most often, that they be compared at once; wider values come first."""
    wide: List[Tensor] = []
    columns: List[Tensor] = []
    for x in values:
        if x.dim() == 1 and x.stride(0) != 0 and (len(columns) == 0 or columns[0].dtype == x.dtype):
            columns.append(x)
        else:
            wide.append(x)
    if len(columns) > 0:
        wide.append(columns[0] if len(columns) == 1 else torch.stack(columns, 1))
    return wide


def equals_before(x: Tensor) -> Tensor:
    """Tell of every row but the first whether it equals the row before, bool[rows - 1]; x has two rows or more."""
    if x.stride(0) == 0:
        usable = not bool(x[0].ne(x[0]).any())
        return torch.full([x.size(0) - 1], usable, dtype=torch.bool)
    rows = (x.flatten(1) if x.dim() > 1 else x.unsqueeze(1)).detach()  # `out=` takes nothing that has gradients
    if rows.size(1) == 0 or rows.is_complex():
        same = rows[1:].eq(rows[:-1]).all(1)
    else:  # written as numbers, which compares and reduces several at a time where bools go one by one
        equal = torch.empty([rows.size(0) - 1, rows.size(1)], dtype=rows.dtype)
        same = torch.eq(rows[1:], rows[:-1], out=equal).amin(1).ne(0)
    # 0.0 equals -0.0: where a run has zeros, their signs are compared
    if rows.is_floating_point() and bool(same.any()):
        heads = rows.index_select(0, begin_runs(same).nonzero().squeeze(1))
        zeros = heads.eq(0).any(0).nonzero().squeeze(1)
        if zeros.size(0) > 0:
            negative = torch.signbit(rows.index_select(1, zeros))
            same = same.logical_and(negative[1:].eq(negative[:-1]).all(1))
    return same


def begin_runs(same: Tensor) -> Tensor:
    """Tell which rows begin a run, bool[rows]."""
    return torch.cat([torch.ones([1], dtype=torch.bool), same.logical_not()])


def row_runs(parts: List[SameRows]) -> RowRuns:
    """Return the runs in which all values repeat.

    Args:
        parts: of the values that are joined.

    Raises:
        RuntimeError: they have other numbers of rows.
    """
    rows, few = parts[0].rows, False
    for part in parts:
        if part.rows != rows:
            raise RuntimeError(f"inputs with repeated rows have {rows} and {part.rows} rows: pass one row per sample")
        few = few or not worth(rows - part.repeats, rows)
    same = parts[0].same
    if few:
        return RowRuns(same, same, rows, rows)
    if len(parts) == 1 and parts[0].repeats == rows - 1:
        return RowRuns(torch.zeros([1], dtype=torch.int64), torch.zeros([rows], dtype=torch.int64), 1, rows)
    for part in parts[1:]:
        same = same.logical_and(part.same)
    new = begin_runs(same)
    first = new.nonzero().squeeze(1)
    distinct = first.size(0)
    if not worth(distinct, rows):
        return RowRuns(same, same, rows, rows)
    return RowRuns(first, new.cumsum(0) - 1, distinct, rows)


def worth(distinct: int, rows: int) -> bool:
    """Tell whether so few rows are distinct that computing them alone pays: at most three of four.

    Expanding a value costs about as much as a product with 64 columns (`MACS_PER_MOVED_VALUE` in `routing.py`), a quarter of one
    with the usual 256.
    """
    return rows > 1 and 4 * distinct <= 3 * rows


def all_rows(runs: RowRuns) -> RowRuns:
    """Return runs of one row each, of the same rows."""
    return RowRuns(runs.first, runs.run, runs.rows, runs.rows)


def count_runs(runs: RowRuns) -> int:
    """Count the runs."""
    return runs.distinct


def match_runs(source: RowRuns, target: RowRuns) -> Moved:
    """Return which of the `source` runs each of the `target` runs lies in; these are the same or shorter."""
    index = source.run
    if source.distinct < target.distinct and target.distinct < target.rows:
        index = index.index_select(0, target.first)
    return Moved(index, source.distinct, target.distinct)


def distinct_rows(x: Tensor, runs: RowRuns, axis: int) -> Tensor:
    """Return the first row of every run.

    Raises:
        RuntimeError: x has another number of rows.
    """
    if x.size(axis) != runs.rows:
        raise RuntimeError(f"inputs with repeated rows have {runs.rows} rows, which does not fit a value of {x.size()}")
    return x if runs.distinct == runs.rows else x.index_select(axis, runs.first)


def expand_runs(x: Tensor, moved: Moved, axis: int) -> Tensor:
    """Give every target run the row of the run that it lies in."""
    return x if moved.source == moved.target else x.index_select(axis, moved.index)


def broadcast_runs(x: Tensor, moved: Moved, axis: int) -> Tensor:
    """Do as `expand_runs`, without a copy where there is one row: for operations that broadcast."""
    if moved.source == 1 and moved.target > 1:
        sizes = list(x.shape)
        sizes[axis] = moved.target
        return x.expand(sizes)
    return expand_runs(x, moved, axis)


def sample_runs(values: List[Tensor]) -> RowRuns:
    """Find samples that are equal in all values, anywhere in the batch: runs whose rows need not be neighbours.

    A sample's values are summed with fixed weights, and samples of one sum are compared bit by bit with the first of them. Where
    two differ, which is one chance in 2^52 or zeros of two signs, no sample of this call is taken for a copy.

    Args:
        values: [rows, ...] each, of one row count.

    Raises:
        RuntimeError: they have other numbers of rows.
    """
    rows = values[0].size(0) if values[0].dim() > 0 else 0
    total = torch.zeros([rows], dtype=torch.float64)
    for x in values:
        if x.dim() == 0 or x.size(0) != rows:
            raise RuntimeError(f"inputs with repeated rows have one row per sample: {values[0].size()} and {x.size()}")
        total = total * 1.7320508 + sum_rows(x)
    each = RowRuns(total, total, rows, rows)
    if rows < 2:
        return each
    _, run, _ = torch._unique2(total, True, True, False)
    distinct = int(run.max().item()) + 1
    if not worth(distinct, rows):
        return each
    first = torch.full([distinct], rows, dtype=torch.int64)
    first.scatter_reduce_(0, run, torch.arange(rows), "amin", include_self=True)
    before = first.index_select(0, run)
    for x in values:
        copied = x.index_select(0, before)
        if not bool(x.eq(copied).all()):
            return each
        if x.is_floating_point() and not bool(torch.signbit(x).eq(torch.signbit(copied)).all()):
            return each
    return RowRuns(first, run, distinct, rows)


def sum_rows(x: Tensor) -> Tensor:
    """Sum each row's values with fixed weights, f64[rows]."""
    rows = x.flatten(1).to(torch.float64) if x.dim() > 1 else x.unsqueeze(1).to(torch.float64)
    weights = torch.arange(1, rows.size(1) + 1, dtype=torch.float64).mul_(0.7548776662).remainder_(1.0).add_(0.5)
    return rows.mul(weights).sum(1)
