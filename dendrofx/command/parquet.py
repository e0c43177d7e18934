"""Read a Parquet file as tensors: columns of numbers are features, columns of lists are inputs.

    price, weight: double          -> float32[rows, 2]
    input_ids: list<int64>         -> {"input_ids": int64[rows, length]}

Whatever a tensor cannot hold (text, dates, nulls, lists of several lengths) is refused by its column and row.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dendrofx.errors import InputError
from dendrofx.machine.needed import needed
from dendrofx.values.lists import is_list, unpacked


def read_parquet(path: Path) -> Tensor | dict[str, Tensor]:
    """Return a file's columns of numbers as one tensor, or its columns of lists as tensors by name.

    Args:
        path: of the file.

    Returns:
        float32[rows, columns] in the order of the columns; or of each column of lists, nested ones too, [rows, length ...] of
        float32, int64 or bool.

    Raises:
        InputError: a column is neither, or there are both sorts; a value is missing; lists differ in length. It names the column.
    """
    table = needed("pyarrow.parquet", path, "dendrofx[parquet]").read_table(path)
    if not table.column_names:
        raise InputError(f"{path} holds no columns: write one for each feature, or one of lists for each input")
    columns = {name: _Column(path, name, table[name]) for name in table.column_names}
    lists = [name for name, column in columns.items() if column.depth]
    if lists and len(lists) < len(columns):
        other = next(name for name in columns if name not in lists)
        raise InputError(f"{path} has columns of lists ({lists[0]}) and of numbers ({other}): keep one sort")
    made = {name: column.tensor() for name, column in columns.items()}
    return made if lists else torch.stack([t.float() for t in made.values()], 1)


class _Column:
    """A column on its way to a tensor, unpacked list by list, so that a fault is found with its row."""

    def __init__(self, path: Path, name: str, values: Any) -> None:  # noqa: ANN401  (Arrow's)
        self.said, self.values, self.shape = f"{path}: column {name}", values.combine_chunks(), [len(values)]
        self.depth, kind = 0, values.type
        while is_list(kind):
            self.depth, kind = self.depth + 1, kind.value_type
        self.dtype = self._dtype(kind)

    def tensor(self) -> Tensor:
        """Return the values; raise `InputError` where one is missing, or lists differ in length."""
        advice = "pad them to one length, or save padded batches as a list in a .pt file"
        try:
            values = unpacked(self.values, self.shape, filled=True, advice=advice)
        except InputError as error:
            raise InputError(f"{self.said} {error}") from None
        return torch.from_numpy(values.to_numpy(zero_copy_only=False).astype(self.dtype)).view(self.shape)

    def _dtype(self, kind: Any) -> type[np.generic]:  # noqa: ANN401
        types = import_module("pyarrow.types")
        if types.is_boolean(kind):
            return np.bool_
        if types.is_integer(kind) and not types.is_uint64(kind):
            return np.int64
        if types.is_floating(kind) or types.is_decimal(kind) or types.is_null(kind):  # no value at all: found as a null
            return np.float32
        raise InputError(f"{self.said} holds {kind}, of which no tensor is made: leave it out, or write numbers")
