"""Write each site's notes on its nodes; later passes find their nodes by them.

1. Every node of a site, first Linear to last, gets `Note(site, "block")`.
2. Nodes of no site are left alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from dendrofx.errors import PassError
from dendrofx.graph.sites import Site
from dendrofx.passes.base import Change, Pass, PassResult
from dendrofx.passes.places import noted
from dendrofx.values.meta import NOTE, Note


@dataclass(frozen=True)
class MarkSites(Pass):
    """Mark the nodes of `sites`. Claim: each site's nodes, and no others, carry its note."""

    sites: tuple[Site, ...]

    def requires(self, gm: fx.GraphModule) -> None:
        """Require that the graph has every node that a site names."""
        names = {n.name for n in gm.graph.nodes}
        for site in self.sites:
            if missing := [name for name in site.nodes if name not in names]:
                raise PassError(f"site '{site.name}' names node %{missing[0]}, which the graph does not have")

    def run(self, gm: fx.GraphModule) -> PassResult:
        """See `Pass.run`."""
        by_name = {n.name: n for n in gm.graph.nodes}
        changed = []
        for site in self.sites:
            for name in site.nodes:
                by_name[name].meta[NOTE] = Note(site.name, "block")
            changed.append(Change(site.name, "marked", site.nodes))
        return PassResult(gm, tuple(changed))

    def ensures(self, gm: fx.GraphModule) -> None:
        """See `Pass.ensures`."""
        marked = {site: tuple(n.name for n in nodes) for site, nodes in noted(gm, "block").items()}
        wanted = {site.name: site.nodes for site in self.sites}
        if marked != wanted:
            raise PassError(f"marked {marked}, wanted {wanted}")
