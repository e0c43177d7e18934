"""Write on every node what the row analysis says of it: its layout, and whether it treats rows on their own.

1. Every node gets a `RowNote`; printed graphs show it.
2. Nothing else is changed.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from dendrofx.errors import PassError
from dendrofx.passes.base import PassOnShapes, PassResult
from dendrofx.rows.analysis import RowAnalysis
from dendrofx.values.meta import ROWS


@dataclass(frozen=True)
class MarkRows(PassOnShapes):
    """Annotate a graph that was captured with symbolic shapes. Claim: every node carries a verdict.

    Args:
        mask: the input whose axes are samples and tokens; without it the first that has both.
    """

    mask: str | None = None

    def run(self, gm: fx.GraphModule) -> PassResult:
        """See `Pass.run`."""
        for node, note in RowAnalysis(gm, self.mask).notes.items():
            node.meta[ROWS] = note
        return PassResult(gm)

    def ensures(self, gm: fx.GraphModule) -> None:
        """See `Pass.ensures`."""
        if missing := [n.name for n in gm.graph.nodes if ROWS not in n.meta]:
            raise PassError(f"%{missing[0]} has no verdict")
