"""The form of an output: where its tensors are, and how to put them together again.

Models return tensors, tuples, dicts, dataclasses, and nestings of them. `flatten` takes one apart:

    >>> tensors, form = flatten(Encoded(hidden=h, pooled=p))
    >>> form.names
    ('hidden', 'pooled')
    >>> form.build(tensors)
    Encoded(hidden=tensor(...), pooled=tensor(...))
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class OutputForm:
    """One place of an output: a tensor, a constant, something left out, or a container of such.

    Attributes:
        name: the path to it, `past.0`; `output` for an output that is one tensor.
        leaf: "tensor", "constant", "left out", or "" for a container.
        value: the constant.
        kind: the container's type.
        parts: its fields, in order.
    """

    name: str
    leaf: str = ""
    value: Any = None
    kind: Any = None
    parts: tuple[tuple[str, OutputForm], ...] = ()

    def leaves(self, leaf: str) -> tuple[str, ...]:
        """Names of the leaves of one sort, in order."""
        if self.leaf:
            return (self.name,) if self.leaf == leaf else ()
        return tuple(name for _, part in self.parts for name in part.leaves(leaf))

    @property
    def names(self) -> tuple[str, ...]:
        """Of its tensors, in order."""
        return self.leaves("tensor")

    @property
    def is_dict(self) -> bool:
        """Whether a dict of tensors says it all: a mapping or a dataclass without nesting."""
        return not self.leaf and all(name.isidentifier() for name in self.names)

    def build(self, tensors: list[Any]) -> Any:  # noqa: ANN401
        """The output, from as many tensors; what was left out is None."""
        return self._build(iter(tensors))

    def _build(self, left: Iterator[Any]) -> Any:  # noqa: ANN401
        if self.leaf:
            return next(left) if self.leaf == "tensor" else self.value
        made = {key: part._build(left) for key, part in self.parts}
        if issubclass(self.kind, tuple | list) and not hasattr(self.kind, "_fields"):
            return self.kind(made.values())
        if issubclass(self.kind, dict) and not dataclasses.is_dataclass(self.kind):
            return self.kind(made)
        return self.kind(**made)


def flatten(value: Any, name: str = "") -> tuple[list[Tensor], OutputForm]:  # noqa: ANN401
    """The tensors of an output, in order, and its form.

    What holds neither tensors nor plain values, such as a cache object, is left out: see `OutputForm.leaves`.
    """
    if isinstance(value, Tensor):
        return [value], OutputForm(name or "output", "tensor")
    if value is None or isinstance(value, bool | int | float | str):
        return [], OutputForm(name or "output", "constant", value)
    fields = _fields(value)
    if fields is None:
        return [], OutputForm(name or type(value).__name__, "left out")
    tensors: list[Tensor] = []
    parts: list[tuple[str, OutputForm]] = []
    for key, inner in fields.items():
        found, form = flatten(inner, f"{name}.{key}" if name else key)
        tensors += found
        parts.append((key, form))
    return tensors, OutputForm(name, kind=type(value), parts=tuple(parts))


def _fields(value: Any) -> dict[str, Any] | None:  # noqa: ANN401
    if isinstance(value, Mapping):  # a dict, and the ordered dicts that are dataclasses too
        return {str(k): v for k, v in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if hasattr(value, "_fields"):  # a named tuple
        return dict(zip(value._fields, value, strict=True))
    return {str(i): v for i, v in enumerate(value)} if isinstance(value, tuple | list) else None
