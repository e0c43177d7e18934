"""Masks of rows: which patterns of live and dead rows are tried, and how a mask of any type writes them.

A mask says by zeros and others which rows of [batch, tokens] are padding. The others are ones in most models; they are also 255,
2, -inf, or the number of a segment. So a pattern is written with the values that the example's own mask has where it is not zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

EMPTY, RAGGED, HOLES = "every mask empty", "ragged masks", "holes in the masks"


def _full(batch: int, tokens: int) -> Tensor:
    return torch.ones(batch, tokens, dtype=torch.bool)


def _ragged(batch: int, tokens: int) -> Tensor:
    """Let live rows end earlier sample by sample, the first at the end and the last after one row; more samples begin again."""
    steps = torch.arange(batch) % max(tokens, 1)
    ends = tokens - steps * (tokens - 1) // max(min(batch, tokens) - 1, 1)
    return torch.arange(tokens) < ends[:, None]


def _holes(batch: int, tokens: int) -> Tensor:
    """Make every third row between the first and the last dead, from another place in each sample."""
    place = torch.arange(tokens)
    inside = (place > 0) & (place < tokens - 1)
    return ((place + torch.arange(batch)[:, None]) % 3 != 1) | ~inside


# bool[batch, tokens], which rows are live.
PATTERNS: dict[str, Callable[[int, int], Tensor]] = {
    "every mask full": _full,
    EMPTY: lambda batch, tokens: ~_full(batch, tokens),
    RAGGED: _ragged,
    "masks ragged at the left": lambda batch, tokens: _ragged(batch, tokens).flip(1),
    HOLES: _holes,
}


def live_of(mask: Tensor, inverted: bool) -> Tensor:
    """Return as bool the rows that a mask marks as live."""
    return mask.eq(0) if inverted else mask.ne(0)


def written(mask: Tensor, alive: Tensor, inverted: bool) -> Tensor:
    """Return a mask of other live rows, in the values of this one.

    Args:
        mask: the example's own, [batch, tokens], of any type.
        alive: bool[batch, tokens], what it shall mark as live.
        inverted: zeros mark live rows.

    Example:
        >>> written(torch.tensor([[3, 3, 5, 0, 0]]), torch.tensor([[True, False, True, True, True]]), False)
        tensor([[3, 0, 5, 5, 5]])
    """
    marked = ~alive if inverted else alive
    return torch.where(marked, _filled(mask), torch.zeros_like(mask))


def patterns(mask: Tensor, inverted: bool) -> Iterator[tuple[str, Tensor]]:
    """Give masks of every pattern, each with its name."""
    batch, tokens = mask.shape
    for name, pattern in PATTERNS.items():
        yield name, written(mask, pattern(batch, tokens), inverted)


def _filled(mask: Tensor) -> Tensor:
    """Replace each zero by the nearest value of its sample before it, else behind it; by that of another sample, or 1."""
    marks = mask.ne(0)
    if not bool(marks.any()):
        return torch.ones_like(mask)
    place = torch.arange(mask.size(1)).expand(mask.shape)
    before = torch.where(marks, place, -1).cummax(1).values
    first = marks.int().argmax(1, keepdim=True)
    near = mask.gather(1, torch.where(before < 0, first, before))
    return torch.where(marks.any(1, keepdim=True), near, mask[marks][0])
