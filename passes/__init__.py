"""Graph passes: each rewrites a traced module in one named way and says what it changed and refused.

Imported as `dendrofx.passes`. The order in which `transform` runs them is in `dendrofx/rewriting/dead_rows.py`, for live
rows, `dendrofx/rewriting/repeated_rows.py`, for distinct ones, and `dendrofx/rewriting/rewrite.py`, for sites.
"""

if __name__ != "dendrofx.passes":
    raise ImportError(f"this package is imported as dendrofx.passes, not as {__name__}")

from dendrofx.passes.add_gate import AddGate
from dendrofx.passes.add_light import AddLight
from dendrofx.passes.base import Change, Pass, PassResult, run_passes
from dendrofx.passes.drop_dead_rows import DropDeadRows
from dendrofx.passes.drop_gate import DropGate
from dendrofx.passes.drop_repeated_rows import DropRepeatedRows
from dendrofx.passes.drop_repeated_samples import DropRepeatedSamples
from dendrofx.passes.fuse_attention import FuseAttention
from dendrofx.passes.join_bags import JoinBags
from dendrofx.passes.mark_rows import MarkRows
from dendrofx.passes.mark_sites import MarkSites
from dendrofx.passes.merge_linears import MergeLinears
from dendrofx.passes.outline_block import OutlineBlock
from dendrofx.passes.route_rows import RouteRows
from dendrofx.passes.split_axes import SplitAxes
from dendrofx.passes.use_exact import UseExact

__all__ = [
    "Change",
    "Pass",
    "PassResult",
    "run_passes",
    "MarkSites",
    "OutlineBlock",
    "AddLight",
    "AddGate",
    "RouteRows",
    "DropGate",
    "SplitAxes",
    "FuseAttention",
    "MarkRows",
    "DropDeadRows",
    "DropRepeatedRows",
    "DropRepeatedSamples",
    "JoinBags",
    "MergeLinears",
    "UseExact",
]
