"""Run the parts of a graph that depend on repeated rows alone on distinct rows.

    %tower = fc1(%user)                     %same   = same_rows([%user])
    %gelu  = gelu(%tower)                   %runs   = row_runs([%same])
    %cat   = cat([%gelu, %item], 1)    ->   %first  = distinct_rows(%user, %runs, 0)
    %y     = top(%cat)                      %tower  = fc1(%first)
                                            %gelu   = gelu(%tower)
                                            %moved  = match_runs(%runs, %rows)
                                            %y      = split_linear([%gelu, %item], [0, 1], [%moved, %whole], ...)

One walk keeps a world for all rows, and one for each period (`rows/periods.py`):

1. A node stands in the world of its period where that spares a product: it is one, or it lies before or behind one.
2. A value is brought from one world to another once, however many nodes read it there. What all rows share is computed in each.
3. A Linear of joined values of different periods is split by columns (`rows/joins.py`), unless the call finds that it does not pay;
   products of pairs among its columns are computed in blocks (`rows/pairs.py`).
4. Sizes in the arguments of view, expand and slice count the runs.
5. Operations that broadcast read the one row of a value without a copy.
6. Everything else stays on all rows, as it was.

In a call in which too few rows repeat every crossing hands on what it is given, and nothing is split: the original's operations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import fx

from dendrofx.errors import PassError
from dendrofx.graph.shapes import tensors
from dendrofx.passes.base import Change, PassOnShapes, PassResult
from dendrofx.passes.split_nodes import SplitNodes
from dendrofx.rows.joins import find_joins, spared
from dendrofx.rows.layout import SAMPLES
from dendrofx.rows.periods import EVERY, Period, Periods, label
from dendrofx.rows.regions import is_sample_product, sample_macs
from dendrofx.rows.rules import ELEMENTWISE, SIZED
from dendrofx.rows.samples import SampleAnalysis
from dendrofx.runtime.pairs import joined_pairs, pair_products
from dendrofx.runtime.repeats import (
    broadcast_runs,
    distinct_rows,
    expand_runs,
    row_runs,
)
from dendrofx.runtime.routing import MACS_PER_MOVED_VALUE
from dendrofx.runtime.split_linear import split_linear
from dendrofx.values.meta import MACS, ROWS, RUNS, SHAPES

aten = torch.ops.aten
_SIZED = SIZED | {aten.view}
# Elementwise operations that may return what they are given.
_HANDS_ON = {
    aten.to,
    aten.type_as,
    aten.contiguous,
    aten.detach,
    aten.alias,
    aten.lift_fresh,
    aten.expand_as,
    aten.clone,
}
_BROADCASTS = (frozenset(ELEMENTWISE) - _HANDS_ON) | {aten.scaled_dot_product_attention, pair_products, joined_pairs}


@dataclass(frozen=True)
class DropRepeatedRows(PassOnShapes):
    """Claim: every product whose rows depend on repeated inputs alone reads distinct rows.

    Args:
        groups: names of inputs, or columns of them, that repeat together, by the name of their group.
        price: multiply-adds in which one value can be moved, see `split_linear`.
    """

    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    price: int = MACS_PER_MOVED_VALUE

    def run(self, gm: fx.GraphModule) -> PassResult:
        """See `Pass.run`."""
        walk = _Periods(gm, self)
        walk.build()
        gm.graph = walk.graph
        gm.graph.eliminate_dead_code()
        walk.broadcast()
        walk.count_macs()
        gm.delete_all_unused_submodules()
        return PassResult(gm, tuple(walk.changes()))

    def ensures(self, gm: fx.GraphModule) -> None:
        """See `Pass.ensures`."""
        crossings = (distinct_rows, expand_runs, broadcast_runs, split_linear, joined_pairs, row_runs)
        for node in gm.graph.nodes:
            for read in node.all_input_nodes if RUNS in node.meta and node.target not in crossings else ():
                if tensors(read) and SAMPLES in read.meta[ROWS].layout and read.meta.get(RUNS) != node.meta[RUNS]:
                    raise PassError(f"%{node.name} runs on distinct rows and reads %{read.name} on others")


class _Periods(SplitNodes):
    """The walk. `values` maps an old node and a world, which is a period, to the new node there."""

    def __init__(self, gm: fx.GraphModule, config: DropRepeatedRows) -> None:
        self.analysis = SampleAnalysis(gm)
        super().__init__(gm, Periods(gm, config.groups, self.analysis), config.price)
        self.joins = find_joins(self.periods)
        self.inside = spared(self.periods, self.joins)
        self.values: dict[tuple[fx.Node, Period | None], fx.Node] = {}

    def build(self) -> None:
        nodes = list(self.gm.graph.nodes)
        for node in nodes:
            if node.op == "placeholder":
                self.at(node, EVERY)
        for node in nodes:
            world = self.world(node)
            if node in self.joins:
                self.values[node, world] = self.split(self.joins[node], world)
            elif self.periods.of.get(node) != frozenset():  # what all rows share is computed where it is read
                self.at(node, world)

    def world(self, node: fx.Node) -> Period | None:
        """Return where a node stands."""
        return self.periods[node] if node in self.inside else EVERY

    def at(self, node: fx.Node, world: Period | None) -> fx.Node:
        """Return a node's value in a world."""
        if SAMPLES not in self.analysis.layout(node):  # weights, sizes, and what is computed from all rows
            world = EVERY
        if (node, world) not in self.values:
            self.values[node, world] = self.brought(node, world)
        return self.values[node, world]

    def brought(self, node: fx.Node, world: Period | None) -> fx.Node:
        """Compute a node in a world, or bring its value there."""
        home, axis = self.world(node), self.analysis.layout(node).find(SAMPLES)
        if home == world or self.periods.of.get(node) == frozenset():
            return self.copy(node, world)
        if home is None:
            assert world is not None
            args = (self.at(node, EVERY), self.runs(world), axis)
            return self.mark(self.call(distinct_rows, args, f"{node.name}_distinct"), node, world)
        args = (self.at(node, home), self.moved(home, world, home), axis)
        return self.mark(self.call(expand_runs, args, f"{node.name}_expanded"), node, world)

    def copy(self, node: fx.Node, world: Period | None) -> fx.Node:
        sized = world is not EVERY and node.target in _SIZED
        given = {n: (self.sized if sized else self.at)(n, world) for n in node.all_input_nodes}
        return self.mark(self.graph.node_copy(node, lambda n: given[n]), node, world)

    def mark(self, new: fx.Node, old: fx.Node, world: Period | None) -> fx.Node:
        note = {ROWS: self.analysis.notes[old]}
        return self.noted(new, old, note if world is None else {**note, RUNS: label(world)})

    def sized(self, node: fx.Node, world: Period | None) -> fx.Node:
        """Return a tensor in a world; a size as it counts it."""
        size = node.meta.get(SHAPES)
        if isinstance(size, str) and self.analysis.letters.letter.get(size) == SAMPLES:
            assert world is not None
            return self.count(world)
        return self.at(node, world)

    # --------------------------------------------------------------------------------------------------------- afterwards

    def broadcast(self) -> None:
        """Leave out copies of a value that only operations that broadcast read."""
        for node in self.graph.nodes:
            if node.target is expand_runs and all(
                u.op == "call_function" and u.target in _BROADCASTS for u in node.users
            ):
                node.target = broadcast_runs

    def count_macs(self) -> None:
        """Leave on the nodes of runs what `forward_counted` needs."""
        runs = {n.meta[RUNS]: n for n in self.graph.nodes if n.target is row_runs}
        for node in self.graph.nodes:
            if RUNS in node.meta and node.target is not split_linear and is_sample_product(node, self.gm):
                runs[node.meta[RUNS]].meta.setdefault(MACS, []).extend(sample_macs(node))

    def changes(self) -> Iterator[Change]:
        for node in self.graph.nodes:
            if node.target is split_linear:
                yield Change(node.name, "is split by columns", (node.name,))
            elif RUNS in node.meta and is_sample_product(node, self.gm):
                yield Change(node.name, f"runs on distinct rows of {node.meta[RUNS]}", (node.name,))
