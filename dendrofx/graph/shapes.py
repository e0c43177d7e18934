"""Symbolic shapes of a graph's values, as plain ints and names of sizes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from dendrofx.values.meta import SHAPES

Shape = tuple[int | str, ...]


def value_shapes(value: Any) -> list[Shape] | int | str | None:  # noqa: ANN401
    """Return the shapes of a value in export's graph, as plain words."""
    if isinstance(value, Tensor):
        return [tuple(_size(s) for s in value.shape)]
    if isinstance(value, list | tuple):
        return [tuple(_size(s) for s in v.shape) for v in value if isinstance(v, Tensor)]
    return _size(value) if isinstance(value, int | torch.SymInt) else None


def value_dtype(value: Any) -> torch.dtype | None:  # noqa: ANN401
    """Return the type of a tensor in export's graph."""
    return value.dtype if isinstance(value, Tensor) else None


def _size(size: Any) -> int | str:  # noqa: ANN401
    """Return an int, also where export keeps it as a symbol of a single value; of a symbolic size its expression."""
    known = size.node.maybe_as_int() if isinstance(size, torch.SymInt) else int(size)
    return str(size) if known is None else int(known)


def tensors(node: fx.Node) -> list[Shape]:
    """Return the shapes of the tensors that a node gives."""
    shapes = node.meta.get(SHAPES)
    return shapes if isinstance(shapes, list) else []


def shape(node: fx.Node) -> Shape:
    """Return the shape of the (first) tensor that a node gives."""
    return tensors(node)[0]
