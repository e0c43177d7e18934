"""Frozen dataclasses as plain JSON values and back: one codec, driven by their fields' types.

A field is written and read by its type: `str`, `bool`, `int`, `float`, `None`, `Literal`, a dataclass, a form (`forms.py`), and
lists, tuples, dicts by name and unions of these. JSON has no infinity, so that it is written as "inf"; NaN is no figure. A field
that has a default may be missing. A field's metadata may hold `least`, the least number in it. A class may name in
`json_notes` what its `to_json` writes beside the fields, for people and versions; it is not read back.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from dendrofx.errors import InputError, PlanError

T = TypeVar("T")
_WORDS = {str: "a string", bool: "true or false", int: "a whole number", float: "a number", NoneType: "null"}
_INFINITE = {"inf": math.inf, "-inf": -math.inf}


def encode(value: Any) -> Any:  # noqa: ANN401
    """Return plain JSON values: dicts, lists, strings, finite numbers, booleans and None."""
    if is_dataclass(value) and not isinstance(value, type):
        if (own := getattr(value, "to_json", None)) is not None:
            return own()
        return encode_fields(value)
    if isinstance(value, Mapping):
        return {str(k): encode(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [encode(v) for v in value]
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return str(value) if isinstance(value, str) else value  # torch's version is a string of a class of its own


def encode_fields(value: Any) -> dict[str, Any]:  # noqa: ANN401  (a dataclass)
    """Return a dataclass by the names of its fields."""
    return {f.name: encode(getattr(value, f.name)) for f in fields(value)}


def decode(kind: type[T], value: Any, path: str = "") -> T:  # noqa: ANN401
    """Return a value of a type, from what `encode` made of it.

    Args:
        kind: a dataclass, or any type that its fields may have.
        value: plain JSON values, as `json.loads` gives them.
        path: where it stands, for messages: `sites[2].light`.

    Raises:
        PlanError: it is not one. It names the field, what was given and what is wanted.

    Example:
        >>> decode(ModelTimes, {"batch": 1, "scripted_ms": 2.0, "routed_ms": True, "noise": 0.0}, "models[0]")
        dendrofx.errors.PlanError: models[0].routed_ms must be a number, got true
    """
    return cast(T, _decode(kind, value, path))


def _decode(kind: Any, value: Any, path: str) -> Any:  # noqa: ANN401
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _union(kind, args, value, path)
    if origin is Literal and isinstance(value, str | int) and any(v == value and type(v) is type(value) for v in args):
        return value
    if origin is list and isinstance(value, list):
        return [_decode(args[0], v, f"{path}[{i}]") for i, v in enumerate(value)]
    if origin is tuple and isinstance(value, list) and (args[1:] == (...,) or len(args) == len(value)):
        kinds = [args[0]] * len(value) if args[1:] == (...,) else args
        return tuple(_decode(k, v, f"{path}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    if origin is dict and isinstance(value, Mapping):
        return {str(k): _decode(args[1], v, f"{path}[{k!r}]") for k, v in value.items()}
    if isinstance(kind, type) and isinstance(value, Mapping):
        if hasattr(kind, "json_words"):
            return _by_name(kind, value, path)
        if is_dataclass(kind):
            return decode_fields(kind, value, path)
    return _plain(kind, value, path)


def _plain(kind: Any, value: Any, path: str) -> Any:  # noqa: ANN401
    """Return a string, a number, true, false or null."""
    if kind is float and isinstance(value, str) and value in _INFINITE:
        return _INFINITE[value]
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= math.inf:
        return value  # a whole number stays one: 1 and 1.0 are the same figure
    if kind is str and isinstance(value, str):
        return str(value)
    if kind in (bool, NoneType) and type(value) is kind:
        return value
    if kind is int and type(value) is int and abs(value) < 2**63:  # what torch takes
        return value
    raise PlanError(f"{path} must be {_words(kind)}, got {_shown(value)}")


def _union(kind: Any, kinds: tuple[Any, ...], value: Any, path: str) -> Any:  # noqa: ANN401
    """Return the first of several types that a value has; of one besides None, what is wrong with it."""
    if value is None and NoneType in kinds:
        return None
    others = [k for k in kinds if k is not NoneType]
    for other in others:
        try:
            return _decode(other, value, path)
        except PlanError:
            if len(others) == 1 and isinstance(value, Mapping | list):
                raise
    raise PlanError(f"{path} must be {_words(kind)}, got {_shown(value)}")


def decode_fields(kind: type[T], value: Mapping[str, Any], path: str) -> T:
    """Return a dataclass from its fields by name."""
    hints, known = _hints(cast(Any, kind)), {f.name: f for f in fields(cast(Any, kind)) if f.init}
    at = f"{path}." if path else ""
    value = {str(k): v for k, v in value.items() if k not in getattr(kind, "json_notes", ())}
    if unknown := [name for name in value if name not in known]:
        raise PlanError(f"{at}{unknown[0]} is no field of {kind.__name__}, which has {', '.join(known)}")
    for name, field in known.items():
        if name not in value and field.default is MISSING and field.default_factory is MISSING:
            raise PlanError(f"{at}{name} is missing: it must be {_words(hints[name])}")
    found = {name: _decode(hints[name], v, f"{at}{name}") for name, v in value.items()}
    for name, given in found.items():
        _check_least(known[name], given, f"{at}{name}")
    try:
        return kind(**found)
    except InputError as error:  # what the class itself checks
        raise PlanError(f"{path}: {error}" if path else str(error)) from error


def _check_least(field: Field[Any], value: Any, path: str) -> None:  # noqa: ANN401
    least = field.metadata.get("least")
    numbers = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else [value]
    for number in numbers:
        if least is not None and isinstance(number, int | float) and number < least:
            raise PlanError(f"{path} must be at least {least}, got {_shown(value)}")


def _by_name(kind: type, value: Mapping[str, Any], path: str) -> Any:  # noqa: ANN401
    """Return a value of the class that is named beside its fields: one of those that share the words' first owner with `kind`."""
    root = next(c for c in reversed(kind.__mro__) if "json_words" in vars(c))
    known = {s.__name__: s for s in _subclasses(root) if is_dataclass(s)}
    name = value.get("form")
    if not isinstance(name, str) or name not in known:
        prefix = f"{path}: " if path else ""
        fitting = sorted(n for n, known_kind in known.items() if issubclass(known_kind, kind))
        raise PlanError(f"{prefix}unknown form {str(name)!r}: this version has {', '.join(fitting)}")
    if not issubclass(known[name], kind):
        raise PlanError(f"{path} must be {_words(kind)}, got {name}")
    return decode_fields(known[name], {k: v for k, v in value.items() if k != "form"}, path)


def _subclasses(kind: type) -> list[type]:
    children: list[type] = type.__subclasses__(kind)
    return [s for child in children for s in (child, *_subclasses(child))]


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _words(kind: Any) -> str:  # noqa: ANN401
    """Return a type as one would say it: "a number or null"."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return " or ".join(_words(k) for k in args)
    if origin is Literal:
        return " or ".join(json.dumps(v) for v in args)
    if origin in (list, tuple):
        return "a list"
    if origin is dict:
        return "an object by name"
    if kind in _WORDS:
        return _WORDS[kind]
    return str(getattr(kind, "json_words", f"an object with the fields of {kind.__name__}"))


def _shown(value: Any) -> str:  # noqa: ANN401
    """Return a value as JSON writes it, cut short."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
