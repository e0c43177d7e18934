"""Move each marked site into one module.

    %fc1 = fc1(%x); %gelu = gelu(%fc1); %fc2 = fc2(%gelu)      ->      %fc2 = routed.fc1_fc2.block(%x)

1. The last node is retargeted in place, so its name, users and place in the graph stay.
2. The nodes before it, which have no other user, are erased.
3. A Linear that another call still uses stays in the module under its own name as well.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx, nn

from dendrofx.errors import PassError
from dendrofx.graph.block import block_of, linear_input
from dendrofx.passes.base import Change, Pass, PassResult
from dendrofx.passes.places import noted, require_free, unique_names
from dendrofx.values.meta import NOTE, Note

CONTAINER = "routed"


@dataclass(frozen=True)
class OutlineBlock(Pass):
    """Outline every marked site. Claim: each site is one call of an `nn.Sequential` that starts and ends in a Linear."""

    def requires(self, gm: fx.GraphModule) -> None:
        """Require that the name `routed` is free: the model has no such attribute."""
        if noted(gm, "block"):
            require_free(gm, CONTAINER)

    def run(self, gm: fx.GraphModule) -> PassResult:
        """See `Pass.run`."""
        changed, marked = [], noted(gm, "block")
        blocks = {site: block_of(gm, tuple(n.name for n in nodes)) for site, nodes in marked.items()}
        names = unique_names(list(blocks))
        for site, nodes in marked.items():
            target = f"{CONTAINER}.{names[site]}.block"
            gm.add_submodule(target, blocks[site])
            first, last = nodes[0], nodes[-1]
            last.op, last.target, last.args, last.kwargs = "call_module", target, (linear_input(first),), {}
            last.meta[NOTE] = Note(site, "outlined")
            for node in reversed(nodes[:-1]):
                gm.graph.erase_node(node)
            changed.append(Change(site, f"outlined as {target}", (last.name,)))
        gm.delete_all_unused_submodules()
        return PassResult(gm, tuple(changed))

    def ensures(self, gm: fx.GraphModule) -> None:
        """See `Pass.ensures`."""
        if left := noted(gm, "block"):
            raise PassError(f"sites {sorted(left)} still have loose nodes")
        for site, nodes in noted(gm, "outlined").items():
            block = gm.get_submodule(str(nodes[0].target))
            ends = (
                isinstance(block, nn.Sequential)
                and isinstance(block[0], nn.Linear)
                and isinstance(block[-1], nn.Linear)
            )
            if len(nodes) != 1 or not ends:
                raise PassError(f"site '{site}' is not one call of a chain: {nodes}")
