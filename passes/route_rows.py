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
from typing import cast

from torch import fx, nn

from dendrofx.errors import PassError
from dendrofx.graph.block import row_macs
from dendrofx.passes.base import Change, Pass, PassResult, noted
from dendrofx.runtime.leaves import FullOnHardRows, LightAfterGate, LightBeforeGate
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
        """Every site with a light branch has a gate."""
        if missing := sorted(set(noted(gm, "light")) - set(noted(gm, "split"))):
            raise PassError(f"sites {missing} have no gate: run AddGate first")

    def run(self, gm: fx.GraphModule) -> PassResult:
        """See `Pass.run`."""
        parts = {part: noted(gm, part) for part in ("outlined", "rows", "light", "gate", "split")}
        changed = []
        for site, (light,) in parts["light"].items():
            block, rows, score, split = (parts[p][site][0] for p in ("outlined", "rows", "gate", "split"))
            if light not in score.all_input_nodes:
                _defer_light(gm, light, split)
            full = _route(gm, site, (block, rows, light, split), self.fulls.get(site))
            full.meta[NOTE], block.meta[NOTE] = Note(site, "full"), Note(site, "routed")
            changed.append(Change(site, "routed", (light.name, full.name, block.name)))
        return PassResult(gm, tuple(changed))

    def ensures(self, gm: fx.GraphModule) -> None:
        """See `Pass.ensures`."""
        for site, (full,) in noted(gm, "full").items():
            users = list(full.users)
            if len(users) != 1 or users[0].target is not restore_rows or not noted(gm, "light")[site][0].users:
                raise PassError(f"the output of '{site}' does not come from its full leaf: {users}")


def _defer_light(gm: fx.GraphModule, light: fx.Node, split: fx.Node) -> None:
    inner = cast(LightBeforeGate, gm.get_submodule(str(light.target))).light
    gm.add_submodule(str(light.target), LightAfterGate(inner))
    split.append(light)
    light.args = (*light.args, split)


def _route(
    gm: fx.GraphModule, site: str, nodes: tuple[fx.Node, fx.Node, fx.Node, fx.Node], given: nn.Module | None
) -> fx.Node:
    block, rows, light, split = nodes
    prefix, _, _ = str(block.target).rpartition(".")
    chain = gm.get_submodule(str(block.target))
    gm.add_submodule(f"{prefix}.full", FullOnHardRows(chain if given is None else given, row_macs(chain), site))
    with gm.graph.inserting_before(block):
        name = f"{prefix.rpartition('.')[2]}_full"
        full = gm.graph.create_node("call_module", f"{prefix}.full", (rows, light, split), name=name)
    block.op, block.target, block.args = "call_function", restore_rows, (full, block.args[0])
    gm.delete_submodule(f"{prefix}.block")
    return full
