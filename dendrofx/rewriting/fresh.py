"""Copies of graph modules for rewriting."""

from __future__ import annotations

import copy

from torch import fx


def fresh(gm: fx.GraphModule) -> fx.GraphModule:
    """Make a fresh module with the same parameters and a graph of its own."""
    made = fx.GraphModule(gm, copy.deepcopy(gm.graph))
    made.meta.update(gm.meta)
    return made.eval()
