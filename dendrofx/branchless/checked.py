"""Checks of a call without a branch: an assert where the format has one, else an index that is out of range.

ONNX has no assert. Its runtime refuses an index outside of a tensor, so there a check reads place 0 or 1 of a tensor of one number,
and adds nothing times what it read to a value that the result depends on. The number tells which check it is: `MARK` and on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

MARK = 0x64656E64_0000  # "dend", and room for 65,536 checks; exact as a float64 too
_BY_INDEX: ContextVar[list[str] | None] = ContextVar("by_index", default=None)


@contextmanager
def checks_by_index() -> Iterator[list[str]]:
    """Write checks as indices; yields the list of their messages, in the order in which they are traced."""
    messages: list[str] = []
    token = _BY_INDEX.set(messages)
    try:
        yield messages
    finally:
        _BY_INDEX.reset(token)


def by_index() -> bool:
    """Return whether what is traced is for ONNX."""
    return _BY_INDEX.get() is not None


def checked(value: Tensor, holds: Tensor, message: str) -> Tensor:
    """Return `value`, which must be used: the check is part of it.

    Args:
        value: numbers, as small a tensor as there is.
        holds: bool[], whether the call is all right.
        message: of the error.
    """
    messages = _BY_INDEX.get()
    if messages is None:
        torch._assert_async(holds, message)
        return value
    mark = torch.full([1], MARK + len(messages), dtype=torch.int64)
    messages.append(message)
    place = holds.logical_not().to(torch.int64).reshape(1)
    zero = mark.index_select(0, place) * 0
    return value + zero.reshape([]).to(value.dtype)
