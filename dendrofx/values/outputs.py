"""The form of an output, or of a call's arguments: where its tensors are, and how to put them together again.

Models take and return tensors, tuples, dicts, dataclasses, and nestings of them. `flatten` takes one apart:

    >>> tensors, form = flatten(Encoded(hidden=h, pooled=p))
    >>> form.names
    ('hidden', 'pooled')
    >>> form.unflatten(tensors)
    Encoded(hidden=tensor(...), pooled=tensor(...))
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# What is no tensor and says all about itself.
PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)


@dataclass(frozen=True)
class TreeSpec:
    """One place of an output: a tensor, a constant, something left out, or a container of such.

    Attributes:
        name: the path to it, `past.0`; `output` for an output that is one tensor.
        leaf: "tensor", "constant", "left out", or "" for a container.
        value: the constant; of what was left out, its class name.
        kind: the container's type.
        parts: its fields, in order.
    """

    name: str
    leaf: str = ""
    value: Any = None
    kind: Any = None
    parts: tuple[tuple[Any, TreeSpec], ...] = ()

    def leaves(self, leaf: str) -> tuple[TreeSpec, ...]:
        """Return the leaves of one sort, in order."""
        if self.leaf:
            return (self,) if self.leaf == leaf else ()
        return tuple(found for _, part in self.parts for found in part.leaves(leaf))

    @property
    def names(self) -> tuple[str, ...]:
        """Of its tensors, in order."""
        return tuple(leaf.name for leaf in self.leaves("tensor"))

    @property
    def is_dict(self) -> bool:
        """Whether a dict of tensors says it all: a mapping or a dataclass without nesting."""
        return not self.leaf and not issubclass(self.kind, tuple) and all(name.isidentifier() for name in self.names)

    @property
    def scripts(self) -> bool:
        """Whether TorchScript returns it as it is: a tensor, a dict of tensors, or a tuple of tensors and tuples."""
        if self.leaf or self.kind is tuple:
            return self.leaf != "left out" and all(part.scripts for _, part in self.parts)
        return self.kind in (list, dict) and all(
            part.leaf == "tensor" and (self.kind is list or isinstance(key, str)) for key, part in self.parts
        )

    def unflatten(self, tensors: Sequence[Any]) -> Any:  # noqa: ANN401
        """Return the output, from as many tensors; what was left out is None."""
        return self._build(iter(tensors))

    def _build(self, left: Iterator[Any]) -> Any:  # noqa: ANN401
        if self.leaf:
            return next(left) if self.leaf == "tensor" else None if self.leaf == "left out" else self.value
        made = {key: part._build(left) for key, part in self.parts}
        if dataclasses.is_dataclass(self.kind) or hasattr(self.kind, "_fields"):
            return self.kind(**made)
        return self.kind(made if issubclass(self.kind, Mapping) else made.values())


Output = tuple[list[Tensor], TreeSpec]


def flatten(value: Any, name: str = "") -> Output:  # noqa: ANN401
    """Return the tensors of an output, in order, and its form.

    What holds neither tensors nor plain values, such as a cache object, is left out: see `TreeSpec.leaves`.
    """
    if isinstance(value, Tensor):
        return [value], TreeSpec(name or "output", "tensor")
    if isinstance(value, PLAIN):
        return [], TreeSpec(name or "output", "constant", value)
    fields = _fields(value)
    if fields is None:
        return [], TreeSpec(name or "output", "left out", type(value).__name__)
    tensors: list[Tensor] = []
    parts: list[tuple[Any, TreeSpec]] = []
    for key, inner in fields.items():
        found, form = flatten(inner, f"{name}.{key}" if name else str(key))
        tensors += found
        parts.append((key, form))
    return tensors, TreeSpec(name, kind=type(value), parts=tuple(parts))


def _fields(value: Any) -> dict[Any, Any] | None:  # noqa: ANN401
    if isinstance(value, Mapping):  # a dict, and the ordered dicts that are dataclasses too
        return dict(value.items())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if hasattr(value, "_fields"):  # a named tuple
        return dict(zip(value._fields, value, strict=True))
    return dict(enumerate(value)) if isinstance(value, tuple | list) else None
