"""Floats that TorchScript cannot read: a graph's code writes them as `nan` and `inf`, which are Python's names, not TorchScript's.

A `SpelledFloat` is the same number, written `float("nan")`, which both read.
"""

from __future__ import annotations

import math
from typing import Any

from torch import fx, nn


class SpelledFloat(float):
    """A float that is written as an expression."""

    def __repr__(self) -> str:
        return f'float("{float(self)}")'


def spell_out(module: nn.Module) -> None:
    """Have the code of a module, and of every graph inside, write what is not finite as an expression; it computes the same.

    Args:
        module: changed where a number is not finite.
    """
    for part in module.modules():
        if isinstance(part, fx.GraphModule) and _spelled(part.graph):
            part.recompile()


def _spelled(graph: fx.Graph) -> bool:
    """Spell out a graph's numbers, and return whether any was replaced."""
    found = False

    def spell(value: Any) -> Any:  # noqa: ANN401
        nonlocal found
        if type(value) is not float or math.isfinite(value):
            return value
        found = True
        return SpelledFloat(value)

    for node in graph.nodes:
        if node.op.startswith("call_"):
            node.args, node.kwargs = (fx.node.map_aggregate(given, spell) for given in (node.args, node.kwargs))
    return found
