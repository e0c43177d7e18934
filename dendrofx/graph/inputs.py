"""The tensors that a graph takes, as an example's shapes tell them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import fx

from dendrofx.values.meta import SHAPE

_DTYPES = {"f": "float", "i": "int", "u": "uint", "bf": "bfloat", "c": "complex"}


@dataclass(frozen=True)
class Input:
    """A tensor that a saved module takes.

    Attributes:
        name: of the keyword, in `torch.jit.load(path)(name=...)` too.
        dtype: "float32"; None where no example said it.
        axes: sizes of its axes, a letter for one that varies: `("N", 64)`; None where no example said them.

    Example:
        >>> print(Input("x", "float32", ("N", 64)))
        x: float32[N, 64]
    """

    name: str
    dtype: str | None = None
    axes: tuple[int | str, ...] | None = None

    def __str__(self) -> str:
        sizes = "" if self.axes is None else f"[{', '.join(map(str, self.axes))}]"
        return f"{self.name}: {self.dtype or 'tensor'}{sizes}"


def inputs_of(gm: fx.GraphModule) -> tuple[Input, ...]:
    """Return the inputs of a graph, in order, by the shapes that it was annotated with: `f32[N, 64]`."""
    return tuple(_input(n) for n in gm.graph.nodes if n.op == "placeholder")


def _input(node: fx.Node) -> Input:
    found = re.fullmatch(r"([a-z]+)(\d*)\[(.*)\]", str(node.meta.get(SHAPE, "")))
    if found is None:
        return Input(str(node.target))
    sort, bits, sizes = found.groups()
    axes = tuple(int(s) if s.isdigit() else s for s in sizes.split(", ") if s)
    return Input(str(node.target), _DTYPES.get(sort, sort) + bits, axes)
