"""The run time of live rows: plain functions that TorchScript compiles.

Live rows are *one long sample*: a value laid out [batch, heads, tokens, features] is packed as [1, heads, live rows, features],
same rank and same axes. So every row-wise op runs on it unchanged, and only sizes in view and expand arguments differ.

    rows = live_rows(mask)              where they are; once per call
    y    = unpad_rows(x, rows, 0, 1)     padded to live; a reshape where all rows are live
    x    = pad_rows(y, rows, 0, 1)      live to padded; dead rows are zero

The order of rows is that of the padded layout, so each sample's rows are neighbours. Attention on them is in `attention.py`.
"""

from typing import List, NamedTuple

import torch
from torch import Tensor

from dendrofx.runtime.kernels import is_dense, padded_rows


class LiveRows(NamedTuple):
    """Where the live rows of a padded [batch, tokens] layout are.

    `index` is i64[count], positions in the flattened batch * tokens, ascending; behind the `live` ones the last is repeated up to
    `count`, a row count that kernels like (`padded_rows`). `sample` and `token` are the two parts of `index`; `lengths` has each
    sample's live rows. Where so few rows are dead that leaving them out does not pay, all are taken for live, and `blank` is
    i64[dead], the positions that are zero in what is padded.
    """

    index: Tensor  # type: ignore[assignment]  # hides tuple.index
    sample: Tensor
    token: Tensor
    live: int
    lengths: List[int]
    batch: int
    tokens: int
    blank: Tensor


def live_rows(mask: Tensor, inverted: bool, side: str = "any") -> LiveRows:
    """Find the rows where `mask` [batch, tokens] is not zero (is zero, when inverted); a sample without any keeps all its rows.

    Args:
        mask: bool, int or float.
        inverted: ones mark dead rows.
        side: where dead rows may be, "right" or "left" of the live ones, or "any".

    Raises:
        RuntimeError: another shape, a mask that is not dense or has no values, or dead rows elsewhere.
    """
    if not is_dense(mask) or mask.is_meta or mask.is_quantized:
        raise RuntimeError(
            "the mask of dead rows is a sparse, nested, mkldnn, quantised or meta tensor, it takes a dense one of plain values"
        )
    if mask.dim() != 2:
        raise RuntimeError(f"the mask of dead rows is shaped {mask.size()}, it takes [batch, tokens]")
    alive = mask.eq(0) if inverted else mask.ne(0)
    tokens = max(mask.size(1), 1)
    if bool(alive.all()):  # as in every call of one sample
        return all_live(mask.size(0), mask.size(1), torch.empty([0], dtype=torch.int64))
    alive = alive.logical_or(alive.any(1, True).logical_not())
    if side != "any":
        first, second = (alive[:, :-1], alive[:, 1:]) if side == "right" else (alive[:, 1:], alive[:, :-1])
        if bool(second.logical_and(first.logical_not()).any()):
            raise RuntimeError(
                f"the mask has padding that is not on the {side}, the side on which the model was found to ignore it when it was"
                " transformed"
            )
    index = alive.reshape(-1).nonzero().squeeze(1)
    live = index.size(0)
    if not worth_leaving_out(mask.numel() - live, mask.numel()):
        return all_live(mask.size(0), mask.size(1), alive.reshape(-1).logical_not().nonzero().squeeze(1))
    spare = min(padded_rows(live), mask.numel()) - live
    if spare > 0:
        index = torch.cat([index, index[-1:].expand(spare)])
    counts: List[int] = alive.sum(1).tolist()
    sample = torch.div(index, tokens, rounding_mode="floor")
    return LiveRows(index, sample, index.remainder(tokens), live, counts, mask.size(0), mask.size(1), index[:0])


def worth_leaving_out(dead: int, rows: int) -> bool:
    """Tell whether so many rows are dead that leaving them out pays: one of ten.

    Moving queries, keys, values and results of an attention, and masking samples from each other, costs about as much as a tenth
    of an encoder layer of width 384 (9 % dead: 0.92 x as fast as with them, two threads, Xeon).
    """
    return dead * 10 > rows


def all_live(batch: int, tokens: int, blank: Tensor) -> LiveRows:
    """Return all rows of a layout; see `LiveRows`."""
    every = torch.arange(batch * tokens)
    sample = torch.div(every, max(tokens, 1), rounding_mode="floor")
    token = every if batch == 1 else every.remainder(max(tokens, 1))
    return LiveRows(every, sample, token, batch * tokens, [tokens] * batch, batch, tokens, blank)


def count_live(rows: LiveRows) -> int:
    """Count the rows of the packed layout."""
    return rows.index.size(0)


def unpad_rows(x: Tensor, rows: LiveRows, b: int, t: int) -> Tensor:
    """Unpad a value: from the padded layout to live rows.

    Args:
        x: a value with samples and tokens.
        rows: of this call.
        b: the axis that counts samples; -1 for a value that is the same for every sample.
        t: the axis that counts tokens.

    Raises:
        RuntimeError: x has other samples or tokens than the mask, or is not dense.
    """
    if not is_dense(x):
        raise RuntimeError(
            "a value with dead rows is a sparse, nested or mkldnn tensor, it takes a dense one: pass .to_dense()"
        )
    if x.dim() <= max(b, t) or x.size(t) != rows.tokens or (b >= 0 and x.size(b) != rows.batch):
        raise RuntimeError(
            f"the mask of dead rows is shaped [{rows.batch}, {rows.tokens}], which does not fit a value of {x.size()}"
        )
    if b < 0:
        return x.index_select(t, rows.token)
    x = x.movedim([b, t], [0, 1]).flatten(0, 1)
    if rows.live < x.size(0):
        x = x.index_select(0, rows.index)
    return x.unsqueeze(0).movedim([0, 1], [b, t])


def pad_rows(x: Tensor, rows: LiveRows, b: int, t: int) -> Tensor:
    """Pad a value: from live rows to the padded layout; dead rows are zero."""
    x = x.movedim([b, t], [0, 1]).squeeze(0)
    if rows.blank.size(0) > 0:
        x = x.index_fill(0, rows.blank, 0)
    if rows.live < rows.batch * rows.tokens:
        shape = [rows.batch * rows.tokens] + list(x.shape[1:])  # TorchScript unpacks no list
        x = x.new_zeros(shape).index_copy_(0, rows.index[: rows.live], x[: rows.live])
    padded: Tensor = x.unflatten(0, [rows.batch, rows.tokens]).movedim([0, 1], [b, t])
    return padded
