"""Forms: frozen configurations of light branches and gates, how they print, and how they are written to JSON and read back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import Field, fields
from typing import Any, cast

from dendrofx.errors import InputError


class Form:
    """Base of the light and gate forms, which are frozen dataclasses."""

    def __str__(self) -> str:
        """The form as one would write it, without what is as by default: `LowRank(rank=8, basis='weight', precision=Int8())`."""
        shown = ((f.name, getattr(self, f.name)) for f in _fields(self) if self._shown(f))
        return f"{type(self).__name__}({', '.join(f'{n}={v if isinstance(v, Form) else repr(v)}' for n, v in shown)})"

    def _shown(self, field: Field[Any]) -> bool:
        return bool(field.metadata.get("shown", False)) or getattr(self, field.name) != field.default

    def to_json(self) -> dict[str, Any]:
        """`{"form": "LowRank", "rank": 8, "basis": "weight", "precision": None}`."""
        return {"form": type(self).__name__} | {f.name: _plain(getattr(self, f.name)) for f in _fields(self)}


def form_from_json(value: Mapping[str, Any]) -> Form:
    """The form that `to_json` wrote.

    Raises:
        InputError: a name that is no form of this version, or fields that it does not take.
    """
    known = {kind.__name__: kind for kind in _subclasses(Form)}
    given = {name: _read(v) for name, v in value.items() if name != "form"}
    kind = known.get(str(value.get("form")))
    if kind is None:
        raise InputError(f"unknown form {value.get('form')!r}: this version has {', '.join(sorted(known))}")
    try:
        return kind(**given)
    except TypeError as error:
        raise InputError(f"{value.get('form')} does not take {given}: {error}") from error


def _fields(form: Form) -> tuple[Field[Any], ...]:
    return fields(cast(Any, form))  # subclasses are dataclasses


def _plain(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, Form):
        return value.to_json()
    return "inf" if isinstance(value, float) and math.isinf(value) else value  # JSON has no infinity


def _read(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, Mapping):
        return form_from_json(value)
    return math.inf if value == "inf" else value


def _subclasses(kind: type[Form]) -> list[type[Form]]:
    return [s for child in kind.__subclasses__() for s in (child, *_subclasses(child))]
