"""Give each site with a light branch a gate and a tolerance, and split its rows; nothing is routed yet.

%score = gate(%rows)              a gate that reads the input, or
%score = gate(%rows, %light)      one that reads the light branch's output
%tolerance = routed.fc1_fc2.tolerance           0: every row is hard
%split = split_rows(%score, %tolerance, share)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import fx, nn

from dendrofx.errors import PassError
from dendrofx.gates.form import Reads
from dendrofx.graph.block import row_cost
from dendrofx.passes.base import Change, Pass, PassResult
from dendrofx.passes.places import Place, noted, places
from dendrofx.runtime.leaves import light_leaf
from dendrofx.runtime.routing import easy_only_from, split_rows

# A share of hard rows that no batch reaches: the light branch has run on every row before the gate.
NEVER = 2.0


@dataclass(frozen=True)
class AddGate(Pass):
    """Add `gates[site]`, what a fitted gate reads and the gate. Claim: every tolerance is 0, and no output depends on one."""

    gates: Mapping[str, tuple[Reads, nn.Module]]

    def requires(self, gm: fx.GraphModule) -> None:
        """Require that every site with a light branch has a gate."""
        if missing := sorted(set(noted(gm, "light")) - set(self.gates)):
            raise PassError(f"sites {missing} have a light branch and no gate")

    def run(self, gm: fx.GraphModule) -> PassResult:
        """See `Pass.run`."""
        return PassResult(gm, tuple(_add(place, *self.gates[place.site]) for place in places(gm, "rows", "light")))

    def ensures(self, gm: fx.GraphModule) -> None:
        """See `Pass.ensures`."""
        for site, (tolerance,) in noted(gm, "tolerance").items():
            if float(gm.get_buffer(str(tolerance.target))) != 0.0:
                raise PassError(f"the tolerance of '{site}' is not 0 before calibration")
        for site, (split,) in noted(gm, "split").items():
            if split.users:
                raise PassError(f"rows of '{site}' are routed before RouteRows: {list(split.users)}")


def _add(place: Place, reads: Reads, gate: nn.Module) -> Change:
    """Add a gate, and choose the leaf of the light branch that it reads; that of others is `RouteRows`'s to choose."""
    rows, light = place.nodes["rows"], place.nodes["light"]
    share = _share(place) if reads == "input" else NEVER
    if reads != "input":
        place.put("light", light_leaf(place.module("light"), reads))
    score = place.add_module("gate", gate, (rows,) if reads == "input" else (rows, light))
    place.gm.get_submodule(place.prefix).register_buffer("tolerance", torch.zeros(()))
    tolerance = place.add("tolerance", "get_attr", f"{place.prefix}.tolerance")
    split = place.add("split", "call_function", split_rows, (score, tolerance, share))
    return Change(place.site, "gate added", (score.name, tolerance.name, split.name))


def _share(place: Place) -> float:
    """Return the share of hard rows from which the light branch runs on the easy rows only."""
    chain = cast(nn.Sequential, place.module("block"))
    first, last = cast(nn.Linear, chain[0]), cast(nn.Linear, chain[-1])
    work = row_cost(place.module("light")).work
    return round(easy_only_from(work, first.in_features, last.out_features), 4)
