"""Give each outlined site a light branch, beside the block that still computes the output.

    %fc2 = block(%x)      ->      %rows = as_rows(%x);  %light = light(%rows);  %fc2 = block(%x)

1. A site with a light branch gets the two nodes; nothing reads %light yet.
2. A site without one is refused and left as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from torch import fx, nn

from dendrofx.errors import PassError
from dendrofx.graph.sites import Refusal
from dendrofx.passes.base import Change, Pass, PassResult, noted
from dendrofx.runtime.leaves import LightBeforeGate
from dendrofx.runtime.routing import as_rows
from dendrofx.values.meta import NOTE, Note


@dataclass(frozen=True)
class AddLight(Pass):
    """Add `lights[site]`, a fitted light branch, to each outlined site. Claim: no output depends on a light branch."""

    lights: Mapping[str, nn.Module]

    def requires(self, gm: fx.GraphModule) -> None:
        """No site has a light branch yet."""
        if have := sorted(noted(gm, "light")):
            raise PassError(f"sites {have} already have a light branch")

    def run(self, gm: fx.GraphModule) -> PassResult:
        """See `Pass.run`."""
        changed, refused = [], []
        for site, (node,) in noted(gm, "outlined").items():
            if site not in self.lights:
                refused.append(Refusal(site, "no light branch given", node.name))
                continue
            prefix, name = _prefix(node)
            block = cast(nn.Sequential, gm.get_submodule(str(node.target)))
            gm.add_submodule(f"{prefix}.light", LightBeforeGate(self.lights[site]))
            with gm.graph.inserting_before(node):
                args = (node.args[0], cast(nn.Linear, block[0]).in_features, site)
                rows = gm.graph.create_node("call_function", as_rows, args, name=f"{name}_rows")
                light = gm.graph.create_node("call_module", f"{prefix}.light", (rows,), name=f"{name}_light")
            rows.meta[NOTE], light.meta[NOTE] = Note(site, "rows"), Note(site, "light")
            changed.append(Change(site, "light branch added", (rows.name, light.name)))
        return PassResult(gm, tuple(changed), tuple(refused))

    def ensures(self, gm: fx.GraphModule) -> None:
        """See `Pass.ensures`."""
        for site, (light,) in noted(gm, "light").items():
            if light.users:
                raise PassError(f"the light branch of '{site}' has users before it has a gate: {list(light.users)}")


def _prefix(node: fx.Node) -> tuple[str, str]:
    """`routed.fc1_fc2` and `fc1_fc2` of an outlined site's node."""
    prefix = str(node.target).rpartition(".")[0]
    return prefix, prefix.rpartition(".")[2]
