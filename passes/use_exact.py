"""Compute unrouted sites in an exact, faster form: weights laid out for the kernel, activations applied by it.

    %fc1 = fc1(%x); %gelu = gelu(%fc1); %fc2 = fc2(%gelu)      ->      %rows  = as_rows(%x)
                                                                        %exact = exact.fc1_fc2(%rows)
                                                                        %fc2   = restore_rows(%exact, %x)

1. Every row is computed, by the same sums in another order: outputs move in their last bits.
2. The last node keeps its name, users and place.
3. Sites that are not named are left as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import fx, nn

from dendrofx.errors import PassError
from dendrofx.graph.block import linear_input, row_cost
from dendrofx.graph.sites import Site
from dendrofx.passes.base import Change, Pass, PassResult
from dendrofx.passes.places import require_free, unique_names
from dendrofx.runtime.routing import as_rows, restore_rows
from dendrofx.values.meta import LIVE

CONTAINER = "exact"


@dataclass(frozen=True)
class UseExact(Pass):
    """Put exact forms in place of sites. Claim: each of them is called once, and its site's Linears no more.

    Args:
        sites: those to replace.
        forms: by site name, f32[N, in] -> f32[N, out]; sites with the same Linears may share one.
    """

    sites: tuple[Site, ...]
    forms: Mapping[str, nn.Module]

    def requires(self, gm: fx.GraphModule) -> None:
        """Require that the name `exact` is free, and that every site has a form of the Linears' own multiply-adds."""
        require_free(gm, CONTAINER)
        for site in self.sites:
            if site.name not in self.forms or row_cost(self.forms[site.name]).macs != site.macs:
                raise PassError(f"site '{site.name}' ({site.shape}) has no exact form")

    def run(self, gm: fx.GraphModule) -> PassResult:
        """See `Pass.run`."""
        by_name = {n.name: n for n in gm.graph.nodes}
        names = unique_names([s.name for s in self.sites])
        changed = []
        for site in self.sites:
            nodes = [by_name[name] for name in site.nodes]
            target = f"{CONTAINER}.{names[site.name]}"
            gm.add_submodule(target, self.forms[site.name])
            changed.append(Change(site.name, f"computed by {target}", _replace(gm, site, nodes, target)))
        gm.delete_all_unused_submodules()
        return PassResult(gm, tuple(changed))

    def ensures(self, gm: fx.GraphModule) -> None:
        """See `Pass.ensures`."""
        called = [str(n.target) for n in gm.graph.nodes if n.op == "call_module"]
        for site, name in unique_names([s.name for s in self.sites]).items():
            if called.count(f"{CONTAINER}.{name}") != 1:
                raise PassError(f"the exact form of '{site}' is not called once")


def _replace(gm: fx.GraphModule, site: Site, nodes: list[fx.Node], target: str) -> tuple[str, ...]:
    """Replace the site's nodes by three, and return their names."""
    first, last = nodes[0], nodes[-1]
    name = target.rpartition(".")[2]
    x = linear_input(first)
    with gm.graph.inserting_before(last):
        rows = gm.graph.create_node("call_function", as_rows, (x, site.widths[0], site.name), name=f"{name}_rows")
        exact = gm.graph.create_node("call_module", target, (rows,), name=f"{name}_exact")
    last.op, last.target, last.args, last.kwargs = "call_function", restore_rows, (exact, x), {}
    for node in reversed(nodes[:-1]):
        gm.graph.erase_node(node)
    if LIVE in last.meta:
        rows.meta[LIVE] = exact.meta[LIVE] = True
    return rows.name, exact.name, last.name
