"""Leave out gate and full branch of a site, so that every row takes the light one.

    %rows  = as_rows(%x)                           %rows  = as_rows(%x)
    %light = light(%rows)                          %light = light(%rows, %tolerance)
    %score = gate(%rows)                   ->      %fc2   = restore_rows(%light, %x)
    %split = split_rows(%score, %tolerance)
    %full  = full(%rows, %light, %split)
    %fc2   = restore_rows(%full, %x)

1. What is left out is gone: no gate and no full branch in the graph, in memory, or in a file.
2. Rows that are not finite, which a gate would have sent to the full branch, raise; so does a tolerance of 0, which asks for it.
   Not where the site is not watched: in the light model of a cascade, whose samples are judged by what comes out of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import fx, nn

from dendrofx.errors import PassError
from dendrofx.passes.base import Change, Pass, PassResult
from dendrofx.passes.places import noted
from dendrofx.runtime.leaves import FullOnHardRows, LightOnly

_PARTS = ("rows", "light", "gate", "split", "full", "tolerance", "routed")


@dataclass(frozen=True)
class DropGate(Pass):
    """Leave out the gates and full branches of routed sites. Claim: neither is in the graph any more.

    Args:
        sites: names of routed sites.
        watched: see above.
    """

    sites: tuple[str, ...]
    watched: bool = True

    def requires(self, gm: fx.GraphModule) -> None:
        """Require that every site is routed."""
        if missing := sorted(set(self.sites) - set(noted(gm, "full"))):
            raise PassError(f"sites {missing} are not routed: run RouteRows first")

    def run(self, gm: fx.GraphModule) -> PassResult:
        """See `Pass.run`."""
        found = {part: noted(gm, part) for part in _PARTS}
        changes = tuple(
            _drop(gm, site, {part: nodes[site][0] for part, nodes in found.items()}, self.watched)
            for site in self.sites
        )
        gm.delete_all_unused_submodules()
        return PassResult(gm, changes)

    def ensures(self, gm: fx.GraphModule) -> None:
        """See `Pass.ensures`."""
        left = {*noted(gm, "gate"), *noted(gm, "full")}
        if kept := sorted(left & set(self.sites)):
            raise PassError(f"sites {kept} still have a gate or a full branch")


def _drop(gm: fx.GraphModule, site: str, nodes: dict[str, fx.Node], watched: bool) -> Change:
    """Put the light branch alone in place of the six nodes of a site."""
    prefix = str(nodes["full"].target).rpartition(".")[0]
    full = cast(FullOnHardRows, gm.get_submodule(f"{prefix}.full"))
    branch = cast(nn.Module, gm.get_submodule(f"{prefix}.light").light)
    light, tolerance, last = nodes["light"], nodes["tolerance"], nodes["routed"]
    gm.add_submodule(f"{prefix}.light", LightOnly(branch, full.original_macs, site, watched))
    nodes["rows"].append(tolerance)
    tolerance.append(light)
    last.args = (light, *last.args[1:])
    light.args = (nodes["rows"], tolerance)
    for part in ("full", "split", "gate"):
        gm.graph.erase_node(nodes[part])
    return Change(site, "gate left out", (light.name, last.name))
