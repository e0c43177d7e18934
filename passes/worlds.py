"""Write a graph anew, in several worlds: the rows of the original, and fewer of them.

A pass walks over the old graph, decides for each node in which world it stands, and crosses from one to the other where an edge
does. `DropDeadRows` has a padded and a live world, `DropRepeatedRows` one for every period of repeated rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import fx

from dendrofx.values.meta import ROWS, SHAPES


class Worlds:
    """What such walks have in common: a new graph of the same form of call, and nodes that keep what is known of the old ones.

    Args:
        gm: whose graph is written anew.
    """

    def __init__(self, gm: fx.GraphModule) -> None:
        self.gm = gm
        self.graph = fx.Graph()
        self.graph.set_codegen(gm.graph._codegen)

    def noted(self, new: fx.Node, old: fx.Node, notes: Mapping[str, Any]) -> fx.Node:
        """Return a new node with what is known of an old one's rows and shapes, and notes of its own."""
        new.meta = {**{k: v for k, v in old.meta.items() if k in (ROWS, SHAPES)}, **notes}
        return new

    def call(self, target: Callable[..., Any], args: tuple[Any, ...], name: str) -> fx.Node:
        """Return a new call of a function."""
        return self.graph.create_node("call_function", target, args, name=name)
