"""Columns of lists, as Arrow has them: the values inside, and the lengths that become axes."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np

from dendrofx.errors import InputError


def is_list(kind: Any) -> bool:  # noqa: ANN401  (Arrow's)
    """Tell whether an Arrow type is one of lists."""
    types = import_module("pyarrow.types")
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def unpacked(values: Any, shape: list[int], *, filled: bool, advice: str = "pad them to one length") -> Any:  # noqa: ANN401
    """Return the values inside lists, nested ones too, and append the lengths of these to `shape`.

    Args:
        values: an Arrow array.
        shape: [rows], of the column.
        filled: whether every value must be there; lists must in any case.
        advice: for lists of several lengths.

    Raises:
        InputError: lists of several lengths, or a missing value. The text says what is wrong with a column, not which it is.
    """
    while is_list(values.type):
        _check_filled(values, shape)
        lengths = import_module("pyarrow.compute").list_value_length(values).to_numpy(zero_copy_only=False)
        first = int(lengths[0]) if len(lengths) else 0
        if len(other := lengths[lengths != first]):
            raise InputError(f"holds lists of {first} and of {other[0]} values: {advice}")
        shape.append(first)
        values = values.flatten()
    if filled:
        _check_filled(values, shape)
    return values


def _check_filled(values: Any, shape: Sequence[int]) -> None:  # noqa: ANN401
    if values.null_count:
        first = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
        raise InputError(
            f"has no value in row {first // max(int(np.prod(shape[1:])), 1)}: fill it in, or leave the row out"
        )
