"""A Linear of values that are joined by `cat`, on the distinct rows of each: a plain function that TorchScript compiles.

    y = W [u; i] + b = Wu u + b  +  Wi i          Wu, Wi: columns of W

`u` repeats in runs of rows, so that its product is computed once a run. With one run it is the bias of the other product; with
more it is expanded first, and the other product is added to it in place, which spares a pass.
"""

from typing import List, Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from dendrofx.runtime.repeats import Moved, RowRuns, expand_runs


def split_linear(
    parts: List[Tensor],
    groups: List[int],
    moved: List[Moved],
    whole: Optional[Tensor],
    weights: List[Tensor],
    bias: Optional[Tensor],
    price: int,
) -> Tensor:
    """Map values [runs, ..., columns], joined along the last axis, to [target, ..., out].

    Args:
        parts: the values, in the order in which they are joined.
        groups: of each the number of its group; those of one group repeat alike.
        moved: by group, from its runs to those of the result. All have the same target.
        whole: the joined value on the target's rows, where that is at hand.
        weights: the weight f32[out, columns], and the same with its columns in the order of the groups.
        bias: f32[out] or None.
        price: multiply-adds in which one value can be moved.
    """
    columns = group_columns(parts, groups, len(moved))
    if not splits(columns, moved, parts[0].dim(), price):
        if whole is None:
            whole = torch.cat([expand_runs(x, moved[g], 0) for x, g in zip(parts, groups)], -1)
        return F.linear(whole, weights[0], bias)
    values: List[Tensor] = []
    own: List[Tensor] = []
    ways: List[Moved] = []
    group, begin = 0, 0
    while group < len(moved):
        end, width = group + 1, columns[group]
        while is_target(moved[group]) and end < len(moved) and is_target(moved[end]):  # those are one product
            end, width = end + 1, width + columns[end]
        values.append(joined(parts, groups, group, end))
        own.append(weights[1].narrow(1, begin, width))
        ways.append(moved[group])
        group, begin = end, begin + width
    return add_products(values, own, ways, bias)


def add_products(values: List[Tensor], weights: List[Tensor], moved: List[Moved], bias: Optional[Tensor]) -> Tensor:
    """Return the sum of products of values on their own runs, on the target's."""
    first = 0
    for g in range(1, len(moved)):
        first = g if moved[g].source < moved[first].source else first
    y = F.linear(values[first], weights[first], bias)
    row = y.size(0) == 1 and y.dim() == 2  # it may be the bias of what follows
    if not row:
        y = expand_runs(y, moved[first], 0)
    for g in range(len(moved)):
        if g == first:
            continue
        x, weight = values[g], weights[g]
        if row and is_target(moved[g]):
            y = F.linear(x, weight, y.squeeze(0))
        else:
            y = expand_runs(y, moved[first], 0) if row else y
            if is_target(moved[g]):
                y.flatten(0, -2).addmm_(x.flatten(0, -2), weight.t())
            else:
                y.add_(expand_runs(F.linear(x, weight), moved[g], 0))
        row = False
    return expand_runs(y, moved[first], 0) if row else y


def is_target(moved: Moved) -> bool:
    """Tell whether a group has as many runs as the result."""
    return moved.source == moved.target


def joined(parts: List[Tensor], groups: List[int], first: int, end: int) -> Tensor:
    """Join the values of some groups that follow each other, group by group."""
    own: List[Tensor] = []
    for group in range(first, end):
        for x, g in zip(parts, groups):
            if g == group:
                own.append(x)
    return own[0] if len(own) == 1 else torch.cat(own, -1)


def group_columns(parts: List[Tensor], groups: List[int], count: int) -> List[int]:
    """Count the columns of every group."""
    columns = [0] * count
    for x, g in zip(parts, groups):
        columns[g] += x.size(-1)
    return columns


def splits(columns: List[int], moved: List[Moved], axes: int, price: int) -> bool:
    """Tell whether splitting spares more than expanding costs, which of the one row of a matrix is nothing."""
    spared, expanded = 0, 0
    for c, m in zip(columns, moved):
        spared += c * (m.target - m.source)
        if 1 < m.source < m.target or (m.source == 1 and axes > 2):
            expanded += m.target
    return spared > price * expanded


def count_split(
    parts: List[Tensor], groups: List[int], moved: List[Moved], y: Tensor, price: int, runs: RowRuns, group: int
) -> List[int]:
    """Return the multiply-adds that `split_linear` executed for a group's columns, and those of the same columns on all rows."""
    columns = group_columns(parts, groups, len(moved))
    target = moved[group].target
    ran = moved[group].source if splits(columns, moved, parts[0].dim(), price) else target
    each = columns[group] * (y.numel() // max(target, 1))  # of a row
    return [ran * each, runs.rows * each]
