"""What a rule sees of a node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from dendrofx.graph.shapes import Shape
from dendrofx.rows.layout import FEATURES
from dendrofx.values.meta import SHAPES


@dataclass(frozen=True)
class Op:
    """A node as its rule sees it.

    Attributes:
        node: the call.
        out: layout of its output.
        ins: layouts of its tensor inputs, in order; one that is given twice is there twice.
        first: shape of the first of them; result: of the output.
        axis: the letter of a symbol, see `Letters.axis`.
        module: what a call_module calls.
    """

    node: fx.Node
    out: str
    ins: tuple[str, ...]
    first: Shape
    result: Shape
    axis: Callable[[str], str]
    module: nn.Module | None = None

    def argument(self, index: int, name: str, default: Any = None) -> Any:  # noqa: ANN401
        """Return an argument by position or name."""
        args = self.node.args
        return args[index] if len(args) > index else self.node.kwargs.get(name, default)

    def counts(self, size: Any) -> str:  # noqa: ANN401
        """Return what an argument counts: the letter of a computed size, "." for a number."""
        symbol = size.meta.get(SHAPES) if isinstance(size, fx.Node) else size
        return self.axis(symbol) if isinstance(symbol, str) else FEATURES


# The reason why an op is not row-wise, or None.
Rule = Callable[[Op], "str | None"]
