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
from dendrofx.passes.base import Change, Pass, PassResult, noted
from dendrofx.runtime.leaves import LightBeforeGate, light_leaf
from dendrofx.runtime.routing import easy_only_from, split_rows
from dendrofx.values.meta import NOTE, Note


@dataclass(frozen=True)
class AddGate(Pass):
    """Add `gates[site]`, what a fitted gate reads and the gate. Claim: every tolerance is 0, and no output depends on one."""

    gates: Mapping[str, tuple[Reads, nn.Module]]

    def requires(self, gm: fx.GraphModule) -> None:
        """Every site with a light branch has a gate."""
        if missing := sorted(set(noted(gm, "light")) - set(self.gates)):
            raise PassError(f"sites {missing} have a light branch and no gate")

    def run(self, gm: fx.GraphModule) -> PassResult:
        """See `Pass.run`."""
        outlined = noted(gm, "outlined")
        rows_of = noted(gm, "rows")
        changed = tuple(
            self._add(gm, site, outlined[site][0], rows_of[site][0], light)
            for site, (light,) in noted(gm, "light").items()
        )
        return PassResult(gm, changed)

    def _add(self, gm: fx.GraphModule, site: str, block: fx.Node, rows: fx.Node, light: fx.Node) -> Change:
        reads, gate = self.gates[site]
        prefix = str(light.target).rpartition(".")[0]
        name = prefix.rpartition(".")[2]
        gm.add_submodule(f"{prefix}.gate", gate)
        gm.get_submodule(prefix).register_buffer("tolerance", torch.zeros(()))
        inner = cast(LightBeforeGate, gm.get_submodule(str(light.target))).light
        gm.add_submodule(str(light.target), light_leaf(inner, reads))
        share = 2.0 if reads != "input" else _share(gm, block, light)
        with gm.graph.inserting_before(block):
            new = gm.graph.create_node
            gate_args = (rows,) if reads == "input" else (rows, light)
            score = new("call_module", f"{prefix}.gate", gate_args, name=f"{name}_gate")
            tolerance = new("get_attr", f"{prefix}.tolerance", name=f"{name}_tolerance")
            split = new("call_function", split_rows, (score, tolerance, share), name=f"{name}_split")
        for node, part in ((score, "gate"), (tolerance, "tolerance"), (split, "split")):
            node.meta[NOTE] = Note(site, part)
        return Change(site, "gate added", (score.name, tolerance.name, split.name))

    def ensures(self, gm: fx.GraphModule) -> None:
        """See `Pass.ensures`."""
        for site, (tolerance,) in noted(gm, "tolerance").items():
            if float(gm.get_buffer(str(tolerance.target))) != 0.0:
                raise PassError(f"the tolerance of '{site}' is not 0 before calibration")
        for site, (split,) in noted(gm, "split").items():
            if split.users:
                raise PassError(f"rows of '{site}' are routed before RouteRows: {list(split.users)}")


def _share(gm: fx.GraphModule, block: fx.Node, light: fx.Node) -> float:
    """Share of hard rows from which the light branch runs on the easy rows only."""
    chain = cast(nn.Sequential, gm.get_submodule(str(block.target)))
    first, last = cast(nn.Linear, chain[0]), cast(nn.Linear, chain[-1])
    work = row_cost(gm.get_submodule(str(light.target))).work
    return round(easy_only_from(work, first.in_features, last.out_features), 4)
