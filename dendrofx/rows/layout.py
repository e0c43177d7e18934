"""Layouts: which axes of a value count samples and tokens.

A layout has one letter per axis: `b` samples, `t` tokens, `.` features (a fixed size), `?` anything else.

    input_ids        [batch, tokens]                   bt
    hidden states    [batch, tokens, 384]              bt.
    split in heads   [batch, 12, tokens, 32]           b.t.
    scores           [batch, 12, tokens, tokens]       b.tt   two token axes: no row can be told apart, see `RowAnalysis`

They are read off the symbolic sizes that `torch.export` leaves: two axes have the same letter when they have the same symbol
for every batch, not because they happened to be equal in one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

# Where capture leaves the shapes of a node's value: for each tensor in it a tuple of ints and symbols; for a size, its symbol.
SHAPES = "dendrofx.shapes"
SAMPLES, TOKENS, FEATURES, OPAQUE = "b", "t", ".", "?"

Shape = tuple[int | str, ...]


def value_shapes(value: Any) -> list[Shape] | int | str | None:  # noqa: ANN401
    """The shapes of a value in export's graph, as plain words."""
    if isinstance(value, Tensor):
        return [tuple(_size(s) for s in value.shape)]
    if isinstance(value, list | tuple):
        return [tuple(_size(s) for s in v.shape) for v in value if isinstance(v, Tensor)]
    return _size(value) if isinstance(value, int | torch.SymInt) else None


def _size(size: Any) -> int | str:  # noqa: ANN401
    """An int as it is, a symbolic size as its expression."""
    return str(size) if isinstance(size, torch.SymInt) else int(size)


def tensors(node: fx.Node) -> list[Shape]:
    """The shapes of the tensors that a node gives."""
    shapes = node.meta.get(SHAPES)
    return shapes if isinstance(shapes, list) else []


def shape(node: fx.Node) -> Shape:
    """The shape of the (first) tensor that a node gives."""
    return tensors(node)[0]


class Letters:
    """Which symbols count samples, which tokens.

    Args:
        gm: a module captured by export.

    Attributes:
        letter: by symbol.
    """

    def __init__(self, gm: fx.GraphModule) -> None:
        inputs = [shape(n) for n in gm.graph.nodes if n.op == "placeholder" and tensors(n)]
        self.letter: dict[str, str] = {}
        for sizes in inputs:  # an axis may have several symbols
            for size, letter in zip(sizes, (SAMPLES, TOKENS), strict=False):
                if isinstance(size, str) and self.letter.setdefault(size, letter) != letter:
                    self.letter[size] = OPAQUE

    def of(self, node: fx.Node) -> str:
        """A node's layout; "?" alone where its tensors differ or an axis cannot be told."""
        layouts = {"".join(self._axis(s) for s in sizes) for sizes in tensors(node)}
        return layouts.pop() if len(layouts) == 1 else "" if not layouts else OPAQUE

    def _axis(self, size: int | str) -> str:
        return FEATURES if isinstance(size, int) else self.letter.get(size, OPAQUE)
