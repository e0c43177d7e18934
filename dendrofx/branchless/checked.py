"""Checks of a call without a branch: an assert where the format has one, else an index that is out of range.

ONNX has no assert. Its runtime refuses an index outside of a tensor, so there a check reads place 0 or 1 of a tensor of one zero,
and adds what it read to a value that the result depends on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

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
    messages.append(message)
    place = holds.logical_not().to(torch.int64).reshape(1)
    zero = torch.zeros(1, dtype=value.dtype).index_select(0, place)
    return value + zero.reshape([])
