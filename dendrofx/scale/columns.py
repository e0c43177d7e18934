"""Columns of a dataset as the tensors that a module takes, and its answers as columns again.

    x: list<double>[64]   ->   float32[N, 64]     the dtype and sizes that the file says its input has
    output: float32[N, 5] ->   fixed_size_list<float>[5]

A column is a tensor, a numpy array, or Arrow's; pyarrow itself is imported only to write.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dendrofx.errors import InputError
from dendrofx.graph.show import first_line
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
        try:
            return (column.float() if column.dtype == torch.bfloat16 else column).detach().numpy()
        except TypeError as error:
            raise InputError(f"is {column.dtype}, of which no array is made") from error
    if not hasattr(column, "null_count"):
        return np.asarray(column)
    shape, values = [len(column)], column.combine_chunks() if hasattr(column, "combine_chunks") else column
    if hasattr(values, "storage"):  # a tensor per row, of Arrow's or Ray's: its storage is lists of all its values
        shape, values = [*shape, *values.type.shape], unpacked(values.storage, [], filled=filled)
    else:
        values = unpacked(values, shape, filled=filled)
    return _numpy(values).reshape(shape)


def as_table(columns: Mapping[str, Any]) -> Any:  # noqa: ANN401  (Arrow's)
    """Return columns as an Arrow table: Arrow's own as they are, arrays of more than one axis as lists of fixed size.

    Raises:
        InputError: Arrow has no such column.
    """
    arrow = import_module("pyarrow")
    return arrow.table({n: c if hasattr(c, "null_count") else _as_lists(arrow, n, c) for n, c in columns.items()})


def copied(column: Any) -> Any:  # noqa: ANN401
    """Return a column in memory of its own, which whoever gave it may write to again; Arrow's, which is not written to, as it is.

    Raises:
        InputError: it is no array, but a sparse tensor or one value, say; or it has values that are not there.
    """
    if hasattr(column, "null_count"):
        return column
    if isinstance(column, Tensor) and (column.layout != torch.strided or column.is_nested or column.is_quantized):
        raise InputError("is a sparse, nested or quantized tensor: give a dense one, such as its .to_dense()")
    if np.ma.is_masked(column):
        raise InputError("has masked values: fill them in, or leave their rows out")
    try:
        made = column.detach().cpu().clone() if isinstance(column, Tensor) else np.array(column, order="C")
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"is no array: {first_line(error)}") from error
    if made.ndim == 0:
        raise InputError("is one value: give an array with one for each row")
    if not isinstance(made, np.ndarray):
        return made
    if made.dtype.kind == "f" and getattr(getattr(column, "dtype", None), "kind", "f") in "iu":  # as pandas has them
        raise InputError(
            "holds integers, some of which are missing, and numpy makes floats of them: give an object array"
        )
    return made if made.dtype.isnative else made.astype(made.dtype.newbyteorder("="))


def _numpy(values: Any) -> np.ndarray:  # noqa: ANN401
    """Return Arrow's values as numpy's; integers some of which are missing as objects: Arrow makes floats of them."""
    if hasattr(values, "dictionary_decode"):
        values = values.dictionary_decode()
    if values.null_count and import_module("pyarrow.types").is_integer(values.type):
        return np.array(values.to_pylist(), object)
    made: np.ndarray = values.to_numpy(zero_copy_only=False)
    return made


def _from_array(array: np.ndarray) -> Tensor:
    try:  # torch warns of memory that it must not write to, as Arrow's and Ray's is
        return torch.from_numpy(array if array.flags.writeable else array.copy())
    except TypeError as error:
        raise InputError(f"holds {array.dtype}, of which no tensor is made") from error


def _as_lists(arrow: Any, name: str, column: Any) -> Any:  # noqa: ANN401
    try:
        array = as_array(column)
        made = arrow.array(array.reshape(-1))
        for size in reversed(array.shape[1:]):
            made = arrow.FixedSizeListArray.from_arrays(made, size)
    except (arrow.ArrowException, ValueError, OverflowError) as error:
        raise InputError(f"column {name}, {column.dtype}{list(column.shape)}: {first_line(error)}") from error
    return made
