"""Products of pairs of rows, block by block: plain functions that TorchScript compiles.

    products = bmm(left, right^T)[:, first, second]       in a call in which too few rows repeat, as in the original
    products of two values that repeat                    on their runs
    the others, in blocks                                 on all rows

Which of the two is computed is decided once for the Linear that reads the products (`split_linear.py`).
"""

from typing import List, Optional

import torch
from torch import Tensor

from dendrofx.runtime.repeats import Moved, RowRuns, expand_runs


def pair_products(left: List[Tensor], right: List[Tensor], pick: Tensor, apart: bool) -> Tensor:
    """Return selected products of the rows of one side with those of the other, [runs, pairs].

    Args:
        left: [runs, rows, width] each, or [runs, width] of one row.
        right: the same of the other side; of the same one where it is empty.
        pick: i64[pairs], which of the products, row by row.
        apart: whether blocks are computed; else there is a value for its shape alone.
    """
    return pick_products(left, right, pick) if apart else left[0].new_empty([left[0].size(0), pick.size(0)])


def joined_pairs(
    parts: List[Tensor],
    groups: List[int],
    moved: List[Moved],
    left: List[Tensor],
    right: List[Tensor],
    pick: Tensor,
    place: int,
    apart: bool,
) -> Optional[Tensor]:
    """Return values joined with the products of all pairs, on all rows; None where the products are computed in blocks.

    Args:
        parts: the values.
        groups: of each the number of its group.
        moved: by group, from its runs to those of the result.
        left: as in `pair_products`, on the result's rows.
        right: likewise.
        pick: i64[pairs], of all products.
        place: of the products among the values.
        apart: as in `pair_products`.
    """
    if apart:
        return None
    found: List[Tensor] = []
    for x, g in zip(parts, groups):
        found.append(expand_runs(x, moved[g], 0))
    found.insert(place, pick_products(left, right, pick))
    return torch.cat(found, -1)


def pick_products(left: List[Tensor], right: List[Tensor], pick: Tensor) -> Tensor:
    """Multiply the rows of both sides, and return the products that are picked."""
    a = join_rows(left)
    b = join_rows(right) if len(right) > 0 else a
    return torch.bmm(a, b.transpose(1, 2)).flatten(1).index_select(1, pick)


def join_rows(parts: List[Tensor]) -> Tensor:
    """Join values of [runs, rows, width], or [runs, width] of one row."""
    rows = [x.unsqueeze(1) if x.dim() == 2 else x for x in parts]
    return rows[0] if len(rows) == 1 else torch.cat(rows, 1)


def count_pairs(
    each: List[int], groups: List[int], moved: List[Moved], whole: int, apart: bool, runs: RowRuns
) -> List[int]:
    """Return the multiply-adds that products of pairs executed, and those of all of them on all rows.

    Args:
        each: of a row, of every block.
        groups: of each the number of its group.
        moved: by group, from its runs to those of the result.
        whole: of a row, of all products.
        apart: whether blocks were computed.
        runs: of which all rows are counted.
    """
    executed = whole * moved[0].target
    if apart:
        executed = 0
        for macs, g in zip(each, groups):
            executed += macs * moved[g].source
    return [executed, whole * runs.rows]
