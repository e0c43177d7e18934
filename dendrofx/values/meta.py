"""Every key of a graph module's or a node's `meta` that dendrofx writes, and what stands there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

# ---- of graph modules
CALL = "dendrofx.call"  # its `CallForm`
CAPTURE = "dendrofx.capture"  # how it was captured: `Captured`
ORIGINAL = "dendrofx.original"  # what can be said about the model: `Original`
LINEARS = "dendrofx.linears"  # the model's Linears, `{name: class name}`: those the graph does not call are not in it
MERGED = "dendrofx.merged"  # Linears that became part of a joint one, `{name: name of the joint one}`
SPLIT = "dendrofx.split"  # Linears that are split by columns, `{name: node}`; of such a node, and of pairs: `Columns`
HEADERS = "dendrofx.headers"  # what the printed graph says about each site, by name
PLAN = "dendrofx.plan"  # its `Plan`
SETTINGS = (
    "dendrofx.settings"  # the settings that a budget was tested on, from safest to fastest, up to the first that failed
)
RECIPE = "dendrofx.recipe"  # what it was made from: `Recipe` or `CascadeRecipe`

# ---- of nodes
NOTE = "dendrofx"  # of a routed site: `Note`
SHAPE = "dendrofx.shape"  # of its value, for the printed graph
SEEN = "dendrofx.seen"  # of an input, the sizes of the example that its shape was printed from
SIZE = "dendrofx.size"  # of a number that is a size of the input, its name in the printed graph
SHAPES = "dendrofx.shapes"  # symbolic, of its values
DTYPE = "dendrofx.dtype"  # of its value
ROWS = "dendrofx.rows"  # what its rows are: `Rows`
LIVE = "dendrofx.live"  # it runs on live rows
RUNS = "dendrofx.runs"  # it runs on distinct rows: of which inputs
MACS = "dendrofx.macs"  # what it costs
ENTERED = "dendrofx.entered"  # of the value at a cut, multiply-adds per sample that came before it
CARRIED = "dendrofx.carried"  # how many values of the light model its call goes on from


@dataclass(frozen=True)
class Note:
    """What a node is to its site; shown in printed graphs."""

    site: str
    part: str

    def __str__(self) -> str:
        return f"{self.part} of {self.site}"


@dataclass(frozen=True)
class Columns:
    """The columns of a split Linear, or the products of pairs that it reads in blocks.

    Attributes:
        name: of the Linear, or of the products.
        groups: of each group of columns the inputs in whose rows it repeats, "" for none, and how many columns it has, None where
            the graph does not fix that.
        target: in which rows the result repeats.
        unit: of what is counted.
    """

    name: str
    groups: tuple[tuple[str, int | None], ...]
    target: str
    unit: Literal["columns", "pairs"] = "columns"

    def repeated(self, seen: Sequence[int | None]) -> Iterator[tuple[str, str]]:
        """Yield by what it repeats in, in words, which part repeats more than the result.

        Args:
            seen: by group the columns of an example, for what the graph does not fix.
        """
        widths = [
            width if width is not None else example for (_, width), example in zip(self.groups, seen, strict=True)
        ]
        for (inputs, _), width in zip(self.groups, widths, strict=True):
            known = "" if None in widths else f" ({width} of {sum(w or 0 for w in widths)} {self.unit})"
            if inputs != self.target and width != 0:
                yield inputs, f"{self.name}{known}"
