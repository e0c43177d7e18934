"""Connect the branches: easy rows take the light one, hard rows the full one.

    %rows  = as_rows(%x)                        %rows  = as_rows(%x)
    %light = light(%rows)                       %score = gate(%rows)
    %score = gate(%rows)                        %split = split_rows(%score, %tolerance)
    %split = split_rows(%score, ...)     ->     %light = light(%rows, %split)
    %fc2   = block(%x)                          %full  = full(%rows, %light, %split)
                                                %fc2   = restore_rows(%full, %x)

1. A gate that reads the input: the light branch moves behind the split, so that it can skip hard rows.
2. A gate that reads the light branch: it stays before the gate and runs on every row.
3. The last node keeps its name, so nothing after the site changes.

4. The full branch is the site's block, or the form of it that the caller gave.

The tolerance is still 0: every row takes the full branch, and the graph computes what it computed before, as far as that
branch is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import fx, nn

from dendrofx.errors import PassError
from dendrofx.graph.block import row_macs
from dendrofx.passes.base import Change, Pass, PassResult
from dendrofx.passes.places import Place, noted, places
from dendrofx.runtime.leaves import FullOnHardRows, LightAfterGate
from dendrofx.runtime.routing import restore_rows
from dendrofx.values.meta import NOTE, Note


@dataclass(frozen=True)
class RouteRows(Pass):
    """Route every site that has a light branch and a gate. Claim: each such site's output comes from its full leaf.

    Args:
        fulls: by site name, what runs as the full branch; the original block for sites that are not in it.
    """

    fulls: Mapping[str, nn.Module] = field(default_factory=dict)

    def requires(self, gm: fx.GraphModule) -> None:
        """Require that every site with a light branch has a gate."""
        if missing := sorted(set(noted(gm, "light")) - set(noted(gm, "split"))):
            raise PassError(f"sites {missing} have no gate: run AddGate first")

    def run(self, gm: fx.GraphModule) -> PassResult:
        """See `Pass.run`."""
        routed = places(gm, "rows", "light", "gate", "split")
        return PassResult(gm, tuple(_route(place, self.fulls.get(place.site)) for place in routed))

    def ensures(self, gm: fx.GraphModule) -> None:
        """See `Pass.ensures`."""
        lights = noted(gm, "light")
        for site, (full,) in noted(gm, "full").items():
            users = list(full.users)
            if len(users) != 1 or users[0].target is not restore_rows or not lights[site][0].users:
                raise PassError(f"the output of '{site}' does not come from its full leaf: {users}")


def _route(place: Place, given: nn.Module | None) -> Change:
    block, rows, light, split = (place.nodes[part] for part in ("outlined", "rows", "light", "split"))
    if light not in place.nodes["gate"].all_input_nodes:
        place.put("light", LightAfterGate(place.module("light")))
        split.append(light)
        light.args = (rows, split)
    chain = place.module("block")
    leaf = FullOnHardRows(chain if given is None else given, row_macs(chain), place.site)
    full = place.add_module("full", leaf, (rows, light, split))
    block.op, block.target, block.args = "call_function", restore_rows, (full, block.args[0])
    block.meta[NOTE] = Note(place.site, "routed")
    place.gm.delete_submodule(f"{place.prefix}.block")
    return Change(place.site, "routed", (light.name, full.name, block.name))
