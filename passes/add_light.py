"""Give each outlined site a light branch, beside the block that still computes the output.

    %fc2 = block(%x)      ->      %rows = as_rows(%x);  %light = light(%rows);  %fc2 = block(%x)

1. A site with a light branch gets the two nodes; nothing reads %light yet. What will read it says which leaf runs it: `AddGate`
   chooses one for gates that do, `RouteRows` for the others.
2. A site without one is refused and left as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from torch import fx, nn

from dendrofx.errors import PassError
from dendrofx.graph.sites import Refusal
from dendrofx.passes.base import Change, Pass, PassResult
from dendrofx.passes.places import noted, places
from dendrofx.runtime.routing import as_rows


@dataclass(frozen=True)
class AddLight(Pass):
    """Add `lights[site]`, a fitted light branch, to each outlined site. Claim: no output depends on a light branch."""

    lights: Mapping[str, nn.Module]

    def requires(self, gm: fx.GraphModule) -> None:
        """Require that no site has a light branch yet."""
        if have := sorted(noted(gm, "light")):
            raise PassError(f"sites {have} already have a light branch")

    def run(self, gm: fx.GraphModule) -> PassResult:
        """See `Pass.run`."""
        changed, refused = [], []
        for place in places(gm):
            site, block = place.site, place.nodes["outlined"]
            if site not in self.lights:
                refused.append(Refusal(site, "no light branch given", block.name))
                continue
            first = cast(nn.Linear, cast(nn.Sequential, place.module("block"))[0])
            rows = place.add("rows", "call_function", as_rows, (block.args[0], first.in_features, site))
            light = place.add_module("light", self.lights[site], (rows,))
            changed.append(Change(site, "light branch added", (rows.name, light.name)))
        return PassResult(gm, tuple(changed), tuple(refused))

    def ensures(self, gm: fx.GraphModule) -> None:
        """See `Pass.ensures`."""
        for site, (light,) in noted(gm, "light").items():
            if light.users:
                raise PassError(f"the light branch of '{site}' has users before it has a gate: {list(light.users)}")
