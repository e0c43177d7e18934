"""The nodes of a Linear that is split by columns, and of products of pairs among them.

%apart = splits([24, 8], [%user_to_rows, %rows_to_rows], 2, 64)         where there are products of pairs
%u     = pair_products([%user], [%user], %pick, %apart)                  of each block
%whole = joined_pairs([%dense], [1], ..., [%dense, %user, %item], [], %all, 1, %apart)
%y     = split_linear([%dense, %u, ...], [1, 0, ...], [%user_to_rows, %rows_to_rows], %whole, ...)
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import fx

from dendrofx.passes.run_nodes import RunNodes
from dendrofx.rows.joins import Join
from dendrofx.rows.pairs import Block, Pairs
from dendrofx.rows.periods import EVERY, Period, Periods, label
from dendrofx.runtime.pairs import joined_pairs, pair_products
from dendrofx.runtime.split_linear import split_linear, splits
from dendrofx.values.meta import MACS, SPLIT, Columns


class SplitNodes(RunNodes):
    """A walk that splits Linears.

    Args:
        gm: whose graph is written anew.
        periods: of its values.
        price: multiply-adds in which one value can be moved.
    """

    def __init__(self, gm: fx.GraphModule, periods: Periods, price: int) -> None:
        super().__init__(gm, periods)
        self.price = price

    @abstractmethod
    def mark(self, new: fx.Node, old: fx.Node, world: Period | None) -> fx.Node:
        """Return a new node with what is known of an old one, in a world."""

    def split(self, join: Join, world: Period | None) -> fx.Node:
        """Return the split form of a Linear."""
        parts = [self.at(n, join.periods[g]) for n, g in zip(join.plain, join.groups, strict=False)]
        like = next(p for p in join.periods if p is not None)
        moved = [self.moved(p, world, like) for p in join.periods]
        others = [u for u in join.given.users if u is not join.linear]
        whole = self.at(join.given, world) if others else None
        if join.pairs is not None:
            whole, blocks = self.pairs(join, join.pairs, parts, moved, world)
            parts += blocks
        weight, bias = self.weights(join.linear)
        weights = [weight, weight if join.in_order else self.ordered(weight, join.order())]
        args = (parts, list(join.groups), moved, whole, weights, bias, self.price)
        new = self.mark(self.call(split_linear, args, join.linear.name), join.linear, world)
        owner = str(weight.target).rpartition(".")[0]
        new.meta[SPLIT] = Columns(owner, self.told(join, map(join.width, range(len(moved)))), label(world or ()))
        return new

    def told(self, join: Join, counts: Iterable[int | None]) -> tuple[tuple[str, int | None], ...]:
        """Return by group what it repeats in, and how much it has of something."""
        return tuple((label(p or ()), count) for p, count in zip(join.periods, counts, strict=True))

    # ------------------------------------------------------------------------------------------------- products of pairs

    def pairs(
        self, join: Join, pairs: Pairs, parts: Sequence[fx.Node], moved: Sequence[fx.Node], world: Period | None
    ) -> tuple[fx.Node, list[fx.Node]]:
        """Return the node of all products, which is computed where blocks are not, and those of the blocks."""
        widths = [join.width(g) for g in range(len(moved))]
        apart = self.call(splits, (widths, list(moved), 2, self.price), f"{join.linear.name}_splits")
        groups, name = join.groups[len(parts) :], pairs.product.name
        blocks = [
            self.block(block, pairs, apart, join.periods[g]) for block, g in zip(pairs.blocks, groups, strict=True)
        ]
        sides = [[self.at(n, world) for n in side] for side in (pairs.left, pairs.right)]
        pick = self.buffer(f"{name}_pairs", torch.tensor(pairs.pick))
        args = (list(parts), list(join.groups), list(moved), *sides, pick, join.place, apart)
        whole = self.mark(self.call(joined_pairs, args, f"{name}_joined"), join.given, world)
        counts = [
            sum(len(b.pick) for b, g in zip(pairs.blocks, groups, strict=True) if g == n) for n in range(len(moved))
        ]
        whole.meta[SPLIT] = Columns(name, self.told(join, counts), label(world or ()), "pairs")
        each = [block.products * pairs.width for block in pairs.blocks]
        whole.meta[MACS] = (each, list(groups), pairs.products * pairs.width)
        return whole, blocks

    def block(self, block: Block, pairs: Pairs, apart: fx.Node, world: Period | None) -> fx.Node:
        """Return the node of a block of products."""
        sides = [[self.at(n, world) for n in side] for side in (block.left, block.right)]
        pick = self.buffer(f"{pairs.product.name}_pairs", torch.tensor(block.pick))
        sides[1] = [] if sides[0] == sides[1] else sides[1]
        return self.mark(self.call(pair_products, (*sides, pick, apart), pairs.product.name), pairs.product, world)

    # --------------------------------------------------------------------------------------------------------- parameters

    def weights(self, linear: fx.Node) -> tuple[fx.Node, fx.Node | None]:
        """Return nodes of a Linear's weight and bias."""
        if linear.op == "call_function":
            bias = linear.args[2] if len(linear.args) > 2 else linear.kwargs.get("bias")
            return self.at(linear.args[1], EVERY), self.at(bias, EVERY) if isinstance(bias, fx.Node) else None  # type: ignore[arg-type]
        name = str(linear.target)
        self.gm.meta.setdefault(SPLIT, {})[name] = linear.name
        with_bias = self.gm.get_submodule(name).bias is not None
        return self.parameter(f"{name}.weight"), self.parameter(f"{name}.bias") if with_bias else None

    def parameter(self, name: str) -> fx.Node:
        """Return the node of a parameter or buffer."""
        return self.once(("parameter", name), lambda: self.graph.get_attr(name))

    def ordered(self, weight: fx.Node, columns: list[int]) -> fx.Node:
        """Return a node of the columns of a weight in another order."""
        full: Any = self.gm
        for name in str(weight.target).split("."):
            full = getattr(full, name)
        return self.buffer(f"{weight.target}_columns", full.detach()[:, columns].contiguous())

    def buffer(self, path: str, value: torch.Tensor) -> fx.Node:
        """Return a node of a new buffer, which is called after a path and a number."""
        owner, _, name = path.rpartition(".")
        place = f"{name}_{len(self.made)}"
        self.gm.get_submodule(owner).register_buffer(place, value)
        return self.parameter(f"{owner}.{place}".lstrip("."))
