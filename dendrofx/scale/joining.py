"""Answers of parts as one array for each column, where no value changes: numpy would make floats of integers, strings of both."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dendrofx.errors import InputError

KINDS = {"i": "integers", "u": "integers", "b": "booleans", "f": "floats", "c": "complex numbers", "U": "strings"}
KINDS |= {"T": "strings", "S": "bytes", "M": "times", "m": "durations"}
OF_PYTHON = {int: "integers", bool: "booleans", float: "floats", str: "strings", bytes: "bytes"}
ADVICE = "or take output=, which keeps them apart"


def joined(parts: Mapping[int, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the columns of parts, one after another.

    Args:
        parts: their columns, by place in the dataset.

    Raises:
        InputError: they have not the same columns, or arrays that cannot be joined.
    """
    if not parts:
        return {}
    first = next(iter(parts))
    for place, part in parts.items():
        for name in [n for n in {**parts[first], **part} if (n in part) != (n in parts[first])]:
            has, lacks = (place, first) if name in part else (first, place)
            raise InputError(
                f"part {has} of the dataset has a column {name}, and part {lacks} has none: give it in all, {ADVICE}"
            )
    return {name: _joined(name, {place: part[name] for place, part in parts.items()}) for name in parts[first]}


def _joined(name: str, columns: Mapping[int, np.ndarray]) -> np.ndarray:
    arrays = list(columns.values())
    if len({a.dtype for a in arrays}) > 1 or arrays[0].dtype.kind == "O":
        _check_kinds(name, columns)
    try:
        return np.concatenate(arrays)
    except ValueError as error:
        raise InputError(
            f"column {name} of two parts cannot be joined: {error}. Pad it to one size, {ADVICE}"
        ) from error


def _check_kinds(name: str, columns: Mapping[int, np.ndarray]) -> None:
    """Raise `InputError` where two parts of a column have nothing in common, or integers that no one dtype has."""
    kinds = {place: kind for place, column in columns.items() if (kind := _kinds(column))}
    first = next(iter(kinds), 0)
    for place, kind in kinds.items():
        if kind.isdisjoint(kinds[first]):
            one, two = (" and ".join(sorted(k)) for k in (kinds[first], kind))
            raise InputError(
                f"column {name} holds {one} in part {first} of the dataset and {two} in part {place}: give one kind, {ADVICE}"
            )
    dtypes = {c.dtype for c in columns.values()}
    if {d.kind for d in dtypes} == {"i", "u"} and np.result_type(*dtypes).kind == "f":
        raise InputError(
            f"column {name} is {' and '.join(sorted(map(str, dtypes)))} in parts of the dataset: give one dtype, {ADVICE}"
        )


def _kinds(array: np.ndarray) -> set[str]:
    """Return what a column holds; nothing where all its values are missing."""
    if array.dtype.kind != "O":
        return {KINDS.get(array.dtype.kind, str(array.dtype))} if array.size else set()
    kinds = {type(v) for v in array.reshape(-1) if v is not None and not (isinstance(v, float) and v != v)}  # nor NaN
    return {OF_PYTHON.get(kind, kind.__name__) for kind in kinds}
