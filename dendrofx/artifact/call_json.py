"""How a model was called and what it returned (`CallForm`), as JSON, and back without running anything that the file names.

A class is written as `module:qualname`. Reading looks it up among the modules that are imported already; only of transformers is
a module imported for it. What is found must be a container: a dataclass, a named tuple, a mapping, a tuple or a list. Else a dict
or a tuple stands in its place.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import torch

from dendrofx.values.calling import CallForm
from dendrofx.values.outputs import TreeSpec
from dendrofx.values.signature import Unsaid

_SORTS: dict[str, type] = {"mapping": dict, "fields": dict, "tuple": tuple, "list": list}
_IMPORTED = ("transformers",)


class NotJson(Exception):
    """A call that JSON cannot hold."""


def encode_form(form: CallForm) -> dict[str, Any]:
    """Return a call's form as plain JSON values.

    Raises:
        NotJson: a key of a dict is neither a string nor a whole number.
    """
    return {
        "model": form.model,
        "signature": [_encode_parameter(p) for p in form.signature.parameters.values()],
        "given": _encode_tree(form.given),
        "tensors": list(form.tensors),
        "flags": {name: _encode_plain(value) for name, value in form.flags.items()},
        "output": None if form.output is None else _encode_tree(form.output),
        "guards": list(form.guards),
    }


def decode_form(value: Mapping[str, Any]) -> CallForm:
    """Return the form that `encode_form` wrote; of a file whose seal was checked."""
    output = value["output"]
    return CallForm(
        model=value["model"],
        signature=inspect.Signature([_decode_parameter(p) for p in value["signature"]]),
        given=_decode_tree(value["given"]),
        tensors=tuple(value["tensors"]),
        flags={name: _decode_plain(v) for name, v in value["flags"].items()},
        output=None if output is None else _decode_tree(output),
        guards=tuple(value["guards"]),
    )


def class_name(form: TreeSpec | None) -> str | None:
    """Return the class of an output as `module:qualname`; None of a tensor, or where the graph returns it as it is."""
    return None if form is None or form.leaf else f"{form.kind.__module__}:{form.kind.__qualname__}"


def missing_classes(value: Mapping[str, Any] | None) -> list[str]:
    """Return the classes of an output that cannot be looked up here."""
    if value is None or value["leaf"]:
        return []
    own = [] if _found(value["kind"]) is not None else [value["kind"]]
    return own + [name for _, part in value["parts"] for name in missing_classes(part)]


def _encode_parameter(parameter: inspect.Parameter) -> dict[str, Any]:
    made = {"name": parameter.name, "kind": parameter.kind.name}
    if parameter.default is parameter.empty:
        return made
    said = not isinstance(parameter.default, Unsaid)
    return {**made, "default": _encode_plain(parameter.default) if said else {"unsaid": True}}


def _decode_parameter(value: Mapping[str, Any]) -> inspect.Parameter:
    default = _decode_plain(value["default"]) if "default" in value else inspect.Parameter.empty
    kind: Any = inspect._ParameterKind[value["kind"]]
    return inspect.Parameter(value["name"], kind, default=default)


def _encode_tree(form: TreeSpec) -> dict[str, Any]:
    if form.leaf:
        return {"name": form.name, "leaf": form.leaf, "value": _encode_plain(form.value)}
    if wrong := [key for key, _ in form.parts if type(key) not in (str, int)]:
        raise NotJson(f"{form.name or 'a dict'} has the key {wrong[0]!r}")
    parts = [[key, _encode_tree(part)] for key, part in form.parts]
    return {"name": form.name, "leaf": "", "kind": class_name(form), "sort": _sort(form.kind), "parts": parts}


def _sort(kind: type) -> str:
    if issubclass(kind, Mapping):
        return "mapping"
    return "fields" if dataclasses.is_dataclass(kind) else "list" if issubclass(kind, list) else "tuple"


def _decode_tree(value: Mapping[str, Any]) -> TreeSpec:
    if value["leaf"]:
        return TreeSpec(value["name"], value["leaf"], _decode_plain(value["value"]))
    kind = _found(value["kind"]) or _SORTS[value["sort"]]
    return TreeSpec(value["name"], kind=kind, parts=tuple((key, _decode_tree(part)) for key, part in value["parts"]))


def _found(name: str) -> type | None:
    """Return a container class by `module:qualname`, if it can be had without importing what a file names."""
    module, _, qualname = name.partition(":")
    if module.split(".")[0] in _IMPORTED:
        try:
            import_module(module)
        except ImportError:
            return None
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type):
        return None
    return found if dataclasses.is_dataclass(found) or issubclass(found, Mapping | tuple | list) else None


def _encode_plain(value: Any) -> Any:  # noqa: ANN401
    """Return a plain value (`outputs.PLAIN`) as JSON: what JSON lacks as `{"sort": text}`."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if isinstance(value, bool | int | float | str | type(None)):
        return value
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, complex | torch.dtype | torch.device):
        return {type(value).__name__: str(value).removeprefix("torch.")}
    raise NotJson(f"a {type(value).__name__}")


def _decode_plain(value: Any) -> Any:  # noqa: ANN401
    if not isinstance(value, Mapping):
        return value
    ((sort, text),) = value.items()
    if sort == "unsaid":
        return Unsaid()
    if sort == "dtype":
        return getattr(torch, text)
    makers: dict[str, Callable[[str], Any]] = {
        "float": float,
        "bytes": bytes.fromhex,
        "complex": complex,
        "device": torch.device,
    }
    return makers[sort](text)
