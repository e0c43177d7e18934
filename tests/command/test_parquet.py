"""Parquet files: columns of numbers, columns of lists, and what is refused by column and row."""

import sys
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dendrofx.command.data import read_batches
from dendrofx.errors import InputError

pytestmark = pytest.mark.real("pyarrow")


def read(columns: dict[str, Any], where: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(columns), where / "x.parquet", row_group_size=2)
    return read_batches(where / "x.parquet", 4)


def test_columns_of_numbers_are_features_in_their_order(tmp_path: Path) -> None:
    given = {"b": np.arange(5.0), "a": np.arange(5), "f": np.ones(5, np.float16), "t": np.arange(5) > 2}
    batches = read(given, tmp_path)
    assert [tuple(b.shape) for b in batches] == [(4, 4), (1, 4)]
    wanted = torch.from_numpy(np.stack([column.astype(np.float32) for column in given.values()], 1))
    assert torch.equal(torch.cat(batches), wanted)


def test_columns_of_lists_are_inputs_by_name(tmp_path: Path) -> None:
    import pyarrow as pa

    ids, x = np.arange(12).reshape(4, 3), torch.randn(4, 2, 3)
    given = {
        "ids": ids.tolist(),
        "short": pa.array(ids.tolist(), pa.list_(pa.int32(), 3)),
        "mask": (ids > 4).tolist(),
        "x": x.tolist(),
        "large": pa.array(x.flatten(1).tolist(), pa.large_list(pa.float32())),
    }
    (batch,) = read(given, tmp_path)
    wanted: dict[str, Tensor] = {
        "ids": torch.from_numpy(ids), "short": torch.from_numpy(ids), "mask": torch.from_numpy(ids > 4), "x": x,
        "large": x.flatten(1),
    }  # fmt: skip
    assert list(batch) == list(wanted)
    for name, tensor in wanted.items():
        assert batch[name].dtype == tensor.dtype
        assert torch.equal(batch[name], tensor)


@pytest.mark.parametrize(("columns", "message"), [
    ({"a": [1.0, 2.0], "text": ["x", "y"]}, "column text holds string, of which no tensor is made: leave it out"),
    ({"text": [["x"], ["y"]]}, "column text holds string, of which"),
    ({"day": [date(2026, 1, 1)] * 2}, "column day holds date32"),
    ({"a": [1.0, 2.0, None], "b": [1, 2, 3]}, "column a has no value in row 2: fill it in, or leave the row out"),
    ({"ids": [[1, 2], None]}, "column ids has no value in row 1"),
    ({"x": [[[1.0, 2.0]], [[3.0, None]]]}, "column x has no value in row 1"),
    ({"ids": [[1, 2], [3]]}, "column ids holds lists of 2 and of 1 values: pad them to one length"),
    ({"ids": [[1, 2], [3, 4]], "label": [0, 1]}, r"columns of lists \(ids\) and of numbers \(label\): keep one sort"),
    ({}, "holds no columns"),
])  # fmt: skip
def test_what_a_tensor_cannot_hold_is_refused_by_name(columns: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read(columns, tmp_path)


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(InputError, match=r"needs pyarrow, which is not installed: pip install 'dendrofx\[parquet\]'"):
        read_batches(tmp_path / "x.parquet", 4)
