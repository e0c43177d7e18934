"""Columns as tensors and as answers again: no value changes on the way, or it is refused."""

import dataclasses
import re
from typing import Any

import numpy as np
import pytest

from dendrofx import InputError
from dendrofx.scale.columns import as_tensor
from dendrofx.scale.result import result_of
from dendrofx.scale.worker import Row


@pytest.mark.parametrize(("value", "given", "wanted", "held"), [
    (255, "int64", "uint8", True), (256, "int64", "uint8", False), (-1, "int64", "uint8", False),
    (2**32 + 7, "int64", "int32", False), (2**31, "uint32", "int32", False), (-1, "int8", "uint64", False),
    (2**63 - 1, "uint64", "int64", True), (2**63, "uint64", "int64", False), (2**63, "uint64", "float64", False),
    (2**40, "int64", "float32", True), (2**24 + 1, "int64", "float32", False), (2**63 - 1, "int64", "float32", False),
    (-(2**63), "int64", "float32", True), (-(2**63), "int64", "float16", False), (True, "bool", "float32", True),
    (1 / 3, "float64", "float32", True), (1e300, "float64", "float32", False), (np.inf, "float64", "float32", True),
    (np.nan, "float64", "float16", True), (70000.0, "float32", "float16", False), (-1e300, "complex128", "complex64", False),
])  # fmt: skip
def test_a_column_is_cast_where_the_dtype_has_its_values(value: Any, given: str, wanted: str, *, held: bool) -> None:
    column = (
        np.array([[0, 1], [0, value]]).astype(given) if given != "uint64" else np.array([[0, 1], [0, value]], given)
    )
    if held:
        made, dtype = as_tensor(column, wanted, ("N", 2)).numpy(), np.dtype(wanted)
        np.testing.assert_array_equal(made, column.astype(dtype))
        return
    with pytest.raises(InputError, match=f"^holds {re.escape(str(column[1, 1].item()))}, which {wanted} cannot hold"):
        as_tensor(column, wanted, None)


@pytest.mark.parametrize(("one", "two", "message"), [
    ([1], None, "part 2 of the dataset has a column id, and part 5 has none: give it in all"),
    (None, [1], "part 5 of the dataset has a column id, and part 2 has none: give it in all"),
    ([1], [0.5], "column id holds integers in part 2 of the dataset and floats in part 5: give one kind"),
    ([1], ["a"], "column id holds integers in part 2 of the dataset and strings in part 5: give one kind"),
    ([True], [1], "column id holds booleans in part 2"),
    ([1], np.array(["a", None]), "column id holds integers in part 2 of the dataset and strings in part 5"),
    (np.array([1, None]), np.array(["a", None]), "column id holds integers in part 2 of the dataset and strings in part 5"),
    ([1], np.array([1], np.uint64), "column id is int64 and uint64 in parts of the dataset: give one dtype"),
    ([[1, 2]], [[1]], "column id of two parts cannot be joined: .* take output=, which keeps them apart"),
    ([1], np.array([None, 2]), [1, None, 2]), (np.array([None]), ["a"], [None, "a"]), ([1], np.array([1], np.int8), [1, 1]),
    (np.array([np.nan, "a"], object), ["b"], [np.nan, "a", "b"]), ([], np.array([2.5]), [2.5]), (["ab"], ["c"], ["ab", "c"]),
])  # fmt: skip
def test_columns_of_parts_are_joined_where_no_value_changes(one: Any, two: Any, message: Any) -> None:
    rows = [Row(i, "", 1, {}, answers={} if c is None else {"id": np.array(c)}) for i, c in ((5, two), (2, one))]
    rows = [dataclasses.replace(r, answers={"y": np.zeros(1), **r.answers}) for r in rows]
    if isinstance(message, list):
        assert list(map(repr, result_of(rows, None, 1.0, None).answers["id"].tolist())) == list(map(repr, message))
        return
    with pytest.raises(InputError, match=message):
        result_of(rows, None, 1.0, None)
