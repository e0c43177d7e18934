"""Forms: frozen configurations of light branches and gates, how they print and are read from text; `codec.py` reads their JSON."""

from __future__ import annotations

import ast
import math
from dataclasses import Field, fields, is_dataclass
from typing import Any, ClassVar, cast

from dendrofx.errors import InputError
from dendrofx.values.codec import encode_fields


class Form:
    """Base of the light and gate forms, which are frozen dataclasses."""

    json_words: ClassVar[str] = "a form"

    def __str__(self) -> str:
        """Write the form as one would, without what is as by default: `LowRank(rank=8, basis='weight', precision=Int8())`."""
        shown = ((f.name, getattr(self, f.name)) for f in _fields(self) if self._shown(f))
        return f"{type(self).__name__}({', '.join(f'{n}={v if isinstance(v, Form) else repr(v)}' for n, v in shown)})"

    def _shown(self, field: Field[Any]) -> bool:
        return bool(field.metadata.get("shown", False)) or getattr(self, field.name) != field.default

    def to_json(self) -> dict[str, Any]:
        """Return `{"form": "LowRank", "rank": 8, "basis": "weight", "precision": None}`."""
        return {"form": type(self).__name__} | encode_fields(self)


def form_from_text(text: str) -> Form:
    """Return the form that `str(form)` wrote, or a person: `Int8`, `LowRank(rank=8, precision=Int8())`.

    Raises:
        InputError: it is no form.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise InputError(f"{text!r} is no form: write it as LowRank(rank=32) or Int8()") from error
    form = _evaluated(tree, text)
    if not isinstance(form, Form):
        raise InputError(f"{text!r} is no form: write it as LowRank(rank=32) or Int8()")
    return form


def _evaluated(node: ast.expr, text: str) -> Any:  # noqa: ANN401
    """Evaluate calls of forms with constants and forms as arguments; nothing else is run."""
    if isinstance(node, ast.Name) and node.id == "inf":
        return math.inf
    if isinstance(node, ast.Name):
        node = ast.Call(node, [], [])
    if not isinstance(node, ast.Call):
        try:
            return ast.literal_eval(node)
        except ValueError as error:
            raise InputError(f"{text!r} is no form: {ast.unparse(node)} is not a plain value") from error
    if not isinstance(node.func, ast.Name) or any(k.arg is None for k in node.keywords):
        raise InputError(f"{text!r} is no form: write it as LowRank(rank=32) or Int8()")
    kind = _kind(node.func.id)
    positional = [_evaluated(a, text) for a in node.args]
    named = {str(k.arg): _evaluated(k.value, text) for k in node.keywords}
    try:
        return kind(*positional, **named)
    except TypeError as error:
        raise InputError(f"{text!r}: {error}") from error


def _kind(name: str) -> type[Form]:
    known = {kind.__name__: kind for kind in _subclasses(Form) if is_dataclass(kind)}
    if name not in known:
        raise InputError(f"unknown form {name!r}: this version has {', '.join(sorted(known))}")
    return known[name]


def _fields(form: Form) -> tuple[Field[Any], ...]:
    return fields(cast(Any, form))  # subclasses are dataclasses


def _subclasses(kind: type[Form]) -> list[type[Form]]:
    return [s for child in kind.__subclasses__() for s in (child, *_subclasses(child))]
