"""Names that a graph module needs for itself, and a model may have given to a submodule."""

from __future__ import annotations

from functools import cache

from torch import fx, nn


@cache
def _taken() -> frozenset[str]:
    """Return what a graph module has beyond any module, routed ones too."""
    own = {"graph", "meta", "plan", "settings", "front", "routed", "forward_counted", "graph_forward", "graph_counted"}
    return frozenset({*own, *dir(fx.GraphModule), *vars(fx.GraphModule({}, fx.Graph()))} - {*dir(nn.Module())})


def free_name(path: str) -> str:
    """Return a path under which a graph module can hold what the model has there: `meta.0` becomes `meta_.0`."""
    first, dot, rest = path.partition(".")
    return f"{first}_{dot}{rest}" if first in _taken() else path
