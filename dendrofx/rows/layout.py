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

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx

# Where capture leaves the shapes of a node's value: for each tensor in it a tuple of ints and symbols; for a size, its symbol.
SHAPES = "dendrofx.shapes"
# ... and the type of a tensor's values.
DTYPE = "dendrofx.dtype"
SAMPLES, TOKENS, FEATURES, OPAQUE = "b", "t", ".", "?"

Shape = tuple[int | str, ...]


def value_shapes(value: Any) -> list[Shape] | int | str | None:  # noqa: ANN401
    """The shapes of a value in export's graph, as plain words."""
    if isinstance(value, Tensor):
        return [tuple(_size(s) for s in value.shape)]
    if isinstance(value, list | tuple):
        return [tuple(_size(s) for s in v.shape) for v in value if isinstance(v, Tensor)]
    return _size(value) if isinstance(value, int | torch.SymInt) else None


def value_dtype(value: Any) -> torch.dtype | None:  # noqa: ANN401
    """The type of a tensor in export's graph."""
    return value.dtype if isinstance(value, Tensor) else None


def _size(size: Any) -> int | str:  # noqa: ANN401
    """An int as it is, also where export keeps it as a symbol that can have one value only; a symbolic size as its expression."""
    known = size.node.maybe_as_int() if isinstance(size, torch.SymInt) else int(size)
    return str(size) if known is None else int(known)


def tensors(node: fx.Node) -> list[Shape]:
    """The shapes of the tensors that a node gives."""
    shapes = node.meta.get(SHAPES)
    return shapes if isinstance(shapes, list) else []


def shape(node: fx.Node) -> Shape:
    """The shape of the (first) tensor that a node gives."""
    return tensors(node)[0]


def has_rows(layout: str) -> bool:
    """Whether a layout has one sample axis and one token axis, and all others are features."""
    return layout.count(SAMPLES) == 1 and layout.count(TOKENS) == 1 and OPAQUE not in layout


def fixed(layouts: Iterable[str]) -> bool:
    """Whether no layout counts samples or tokens: weights and constants."""
    return not set("".join(layouts)) & {SAMPLES, TOKENS, OPAQUE}


class Letters:
    """Which symbols count samples, which tokens.

    Samples are counted by axis 0 of every input with two axes or more. Several symbols may do so, because a model need not
    compare the lengths of its inputs; that they are equal is checked in every call (`take_rows`). Tokens are counted by axis 1
    of the mask, and of the others where they have one length: a second sequence has rows of its own, which no mask of the
    first can speak for.

    Args:
        gm: a module captured by export.
        mask: the input whose axes are samples and tokens; without it the first that has both.

    Attributes:
        letter: by symbol.
    """

    def __init__(self, gm: fx.GraphModule, mask: str | None = None) -> None:
        given = {str(n.target): shape(n) for n in gm.graph.nodes if n.op == "placeholder" and tensors(n)}
        samples = {sizes[0] for sizes in given.values() if len(sizes) > 1}
        lengths = {name: sizes[1] for name, sizes in given.items() if len(sizes) > 1 and isinstance(sizes[1], str)}
        tokens = {lengths.get(mask or "", next(iter(lengths.values()), ""))}
        if mask in lengths and len(others := {s for name, s in lengths.items() if name != mask}) == 1:
            tokens |= others
        self.letter: dict[str, str] = {}
        for size in (size for size in samples | tokens if isinstance(size, str) and size):
            both = size in samples and size in tokens
            self.letter[size] = OPAQUE if both else SAMPLES if size in samples else TOKENS

    def of(self, node: fx.Node) -> str:
        """A node's layout; "?" alone where its tensors differ or an axis cannot be told."""
        layouts = {"".join(map(self.axis, sizes)) for sizes in tensors(node)}
        return layouts.pop() if len(layouts) == 1 else "" if not layouts else OPAQUE

    def axis(self, size: int | str) -> str:
        """The letter of one size."""
        return FEATURES if isinstance(size, int) else self.letter.get(size, OPAQUE)
