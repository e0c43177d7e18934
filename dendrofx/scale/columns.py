"""Columns of a dataset as the tensors that a module takes, and its answers as columns again.

    x: list<double>[64]   ->   float32[N, 64]     the dtype and sizes that the file says its input has
    output: float32[N, 5] ->   fixed_size_list<float>[5]

A column is a tensor, a numpy array, or Arrow's; pyarrow itself is imported only to write.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dendrofx.errors import InputError
from dendrofx.values.lists import unpacked

Axes = tuple[int | str, ...]


def as_tensor(column: Any, dtype: str | None, axes: Axes | None) -> Tensor:  # noqa: ANN401
    """Return a column as a tensor of its own memory or, where it is one already, as it is.

    Args:
        column: a tensor, an array, or an Arrow column of numbers or of lists, nested ones too, of one length.
        dtype: that the input has; None takes the column's own.
        axes: sizes that the input has, a letter for one that varies; the first, of rows, is not looked at. None takes any.

    Raises:
        InputError: no tensor can be made of it, or one of another shape, or of a dtype that has not its values; of floats it may
            lose digits. The text says what is wrong with the column, not which it is.
    """
    tensor = column if isinstance(column, Tensor) else _from_array(as_array(column, filled=True))
    wanted = tensor.dtype if dtype is None else getattr(torch, dtype)
    fits = axes is None or (
        len(axes) == tensor.dim()
        and all(isinstance(a, str) or a == s for a, s in zip(axes[1:], tensor.shape[1:], strict=True))
    )
    if not fits or not torch.can_cast(tensor.dtype, wanted):
        sizes = ", ".join(["N", *map(str, tensor.shape[1:])])
        raise InputError(f"is {str(tensor.dtype).removeprefix('torch.')}[{sizes}]")
    return cast(tensor, wanted)


def cast(tensor: Tensor, wanted: torch.dtype) -> Tensor:
    """Return numbers in another dtype; raise `InputError` where torch would wrap one round. Floats may lose digits."""
    made = tensor.to(wanted)
    if made.dtype != tensor.dtype and (lost := _lost(tensor, made)).any():
        value, name = tensor[tuple(lost.nonzero()[0].tolist())].item(), str(wanted).removeprefix("torch.")
        raise InputError(f"holds {value}, which {name} cannot hold")
    return made


def _lost(tensor: Tensor, made: Tensor) -> Tensor:
    """Return which values are not what they were."""
    if tensor.is_floating_point() or tensor.is_complex():
        return tensor.isfinite() & ~made.isfinite()
    whole = tensor.long()
    lost = made.long() != whole
    if torch.uint64 in (tensor.dtype, made.dtype):
        lost |= whole < 0  # what one of int64 and uint64 has and the other has not
    if made.is_floating_point():  # as int64 these may be anything, what they were too
        lost |= made.isinf() | (made.double() >= 2.0**63)
    return lost


def as_array(column: Any, *, filled: bool = False) -> np.ndarray:  # noqa: ANN401
    """Return a column as an array [N, ...]; Arrow's lists of one length become axes.

    Args:
        column: a tensor, an array or an Arrow column.
        filled: whether every value must be there.

    Raises:
        InputError: lists of several lengths; or, where `filled`, a missing value.
    """
    if isinstance(column, Tensor):
        return (column.float() if column.dtype == torch.bfloat16 else column).detach().numpy()
    if not hasattr(column, "null_count"):
        return np.asarray(column)
    shape, values = [len(column)], column.combine_chunks() if hasattr(column, "combine_chunks") else column
    if hasattr(values, "storage"):  # a tensor per row, of Arrow's or Ray's: its storage is lists of all its values
        shape, values = [*shape, *values.type.shape], unpacked(values.storage, [], filled=filled)
    else:
        values = unpacked(values, shape, filled=filled)
    made: np.ndarray = values.to_numpy(zero_copy_only=False).reshape(shape)
    return made


def as_table(columns: Mapping[str, Any]) -> Any:  # noqa: ANN401  (Arrow's)
    """Return columns as an Arrow table: Arrow's own as they are, arrays of more than one axis as lists of fixed size."""
    arrow = import_module("pyarrow")
    return arrow.table(
        {n: c if hasattr(c, "null_count") else _as_lists(arrow, as_array(c)) for n, c in columns.items()}
    )


def joined(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the columns of parts, one after another.

    Raises:
        InputError: they have not the same columns, or arrays that cannot be joined.
    """
    if not parts:
        return {}
    names = list(parts[0])
    try:
        return {name: np.concatenate([part[name] for part in parts]) for name in names}
    except (KeyError, ValueError) as error:
        raise InputError(
            f"the answers of two parts cannot be joined: {error}. Take output=, which keeps them apart"
        ) from error


def _from_array(array: np.ndarray) -> Tensor:
    try:  # torch warns of memory that it must not write to, as Arrow's and Ray's is
        return torch.from_numpy(array if array.flags.writeable else array.copy())
    except TypeError as error:
        raise InputError(f"holds {array.dtype}, of which no tensor is made") from error


def _as_lists(arrow: Any, array: np.ndarray) -> Any:  # noqa: ANN401
    made = arrow.array(array.reshape(-1))
    for size in reversed(array.shape[1:]):
        made = arrow.FixedSizeListArray.from_arrays(made, size)
    return made
