"""Dataclasses as JSON files: written whole or not at all, and read with every field checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from dendrofx.errors import PlanError
from dendrofx.machine.files import write_whole
from dendrofx.values.codec import decode, encode_fields

FORMAT = 4
T = TypeVar("T")


def to_json(plan: object) -> dict[str, Any]:
    """Return a plan as plain values."""
    return {"format": FORMAT, **encode_fields(plan)}


def from_json(kind: type[T], value: Mapping[str, Any]) -> T:
    """Return the plan that `to_json` wrote.

    Raises:
        PlanError: it is not one; it names the field, what was given and what is wanted.
    """
    if value.get("format") != FORMAT:
        raise PlanError(f"not a dendrofx plan of format {FORMAT}: its format is {value.get('format')!r}")
    try:
        return decode(kind, value)
    except PlanError as error:
        raise PlanError(f"the plan cannot be read: {error}") from error


def save(plan: object, path: str | Path) -> None:
    """Write a plan whole or not at all; `PlanError` where the path names no file."""
    write_whole(path, json.dumps(to_json(plan), indent=1, allow_nan=False) + "\n", PlanError)


def load(kind: type[T], path: Path) -> T:
    """Read a plan's file; `PlanError` names it when it cannot be."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanError(f"cannot read the plan {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise PlanError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, Mapping):
        raise PlanError(f"{path} holds no plan, but a {type(value).__name__}")
    return from_json(kind, value)
