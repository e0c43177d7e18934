"""Linears that read values of different periods, joined by `cat`: each can be split by columns, `W [u; i] = Wu u + Wi i`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import fx, nn

from dendrofx.graph.activations import is_transparent
from dendrofx.graph.shapes import shape, tensors
from dendrofx.rows.layout import FEATURES, SAMPLES
from dendrofx.rows.pairs import Block, Pairs, find_pairs, is_read_alone
from dendrofx.rows.periods import Period, Periods, rank
from dendrofx.rows.regions import ancestors, descendants, is_sample_product

aten = torch.ops.aten
_FLAT = (aten.flatten, aten.reshape, aten.view)


@dataclass(frozen=True)
class Part:
    """A part of a joined value.

    Attributes:
        value: its node.
        period: in which it repeats.
        columns: its places in the joined value; None where the graph does not fix them.
        block: of products of pairs, of which it is the part; None of a whole value.
    """

    value: fx.Node
    period: Period | None
    columns: tuple[int, ...] | None
    block: Block | None = None


@dataclass(frozen=True)
class Join:
    """A Linear that can be split.

    Attributes:
        linear: its node.
        given: what it reads: the joined value, or that after nodes that hand it on.
        parts: what is joined, in order.
        periods: of its groups; what repeats comes first where the places of all columns are fixed.
        groups: of each part the number of its group.
        target: the period of the result.
        pairs: products of pairs among the parts, whose blocks are the last of these.
        place: of these products among the other parts.
    """

    linear: fx.Node
    given: fx.Node
    parts: tuple[Part, ...]
    periods: tuple[Period | None, ...]
    groups: tuple[int, ...]
    target: Period | None
    pairs: Pairs | None = None
    place: int = 0

    @property
    def plain(self) -> tuple[fx.Node, ...]:
        """The parts that are whole values."""
        return tuple(part.value for part in self.parts if part.block is None)

    @property
    def values(self) -> Iterator[fx.Node]:
        """All values that the parts are computed from."""
        yield from self.plain
        for block in self.pairs.blocks if self.pairs is not None else ():
            yield from (*block.left, *block.right)

    @property
    def in_order(self) -> bool:
        """Whether the columns of each group follow those of the one before."""
        return self.pairs is None and list(self.groups) == sorted(self.groups)

    def width(self, group: int) -> int | None:
        """Return how many columns a group has; None where the graph does not fix them."""
        own = [p.columns for p, g in zip(self.parts, self.groups, strict=True) if g == group]
        return None if None in own else sum(len(c or ()) for c in own)

    def order(self) -> list[int]:
        """Return the columns of the joined value by group, of fixed places."""
        by_group = sorted(zip(self.groups, self.parts, strict=True), key=lambda pair: pair[0])
        return [c for _, part in by_group for c in part.columns or ()]


def find_joins(periods: Periods) -> dict[fx.Node, Join]:
    """Return the Linears that can be split, by node."""
    found = (_join(node, periods) for node in periods.gm.graph.nodes if _is_linear(node, periods))
    return {join.linear: join for join in found if join is not None}


def _is_linear(node: fx.Node, periods: Periods) -> bool:
    linear = node.target is aten.linear and all(n.op == "get_attr" for n in node.all_input_nodes[1:])
    if node.op == "call_module":
        linear = type(periods.gm.get_submodule(str(node.target))) is nn.Linear
    return linear and periods.analysis.row_wise(node) and isinstance(node.args[0], fx.Node)


def _join(linear: fx.Node, periods: Periods) -> Join | None:
    """Return how a Linear can be split; None where it does not read joined values of different periods."""
    given = linear.args[0]
    assert isinstance(given, fx.Node)
    parts, target = _placed(_parts(given, periods), periods), periods[linear]
    pairs, place = _found_pairs(linear, parts, periods)
    if pairs is not None:
        parts = [*parts[:place], *parts[place + 1 :], *_in_blocks(pairs, parts[place])]
    own = [part.period for part in parts]
    repeated = {p for p in own if p and p != target}
    if len(parts) < 2 or not repeated:
        return None
    fixed = all(part.columns is not None for part in parts)
    groups = list(dict.fromkeys(p for p in own if p != frozenset()))  # what all rows share is of the first group
    if fixed:  # columns can be brought in this order
        groups = [*sorted(repeated, key=rank), *([target] if target in own else [])]
    numbers = tuple(groups.index(p) if p in groups else 0 for p in own)
    join = Join(linear, given, tuple(parts), tuple(groups), numbers, target, pairs, place)
    return join if fixed or join.in_order else None


def _found_pairs(linear: fx.Node, parts: Sequence[Part], periods: Periods) -> tuple[Pairs | None, int]:
    """Return the first products of pairs that a Linear alone reads, and which part they are."""
    for place, part in enumerate(parts):
        like_result = part.columns is not None and part.period == periods[linear]
        if like_result and is_read_alone(part.value, linear) and (pairs := find_pairs(part.value, periods)) is not None:
            return pairs, place
    return None, 0


def _in_blocks(pairs: Pairs, part: Part) -> Iterator[Part]:
    """Yield the blocks of products of pairs as parts of their own."""
    for block in pairs.blocks:
        yield Part(part.value, block.period, tuple((part.columns or ())[i] for i in block.places), block)


def _placed(values: Sequence[fx.Node], periods: Periods) -> list[Part]:
    """Return joined values with their places."""
    widths = [shape(value)[-1] for value in values]
    ends = list(accumulate(w for w in widths if isinstance(w, int)))
    fixed = len(ends) == len(widths)
    return [
        Part(value, periods[value], tuple(range(ends[i] - int(widths[i]), ends[i])) if fixed else None)
        for i, value in enumerate(values)
    ]


def _parts(value: fx.Node, periods: Periods) -> list[fx.Node]:
    """Return the values that one is joined from along the last axis, also by `cat` of `cat`; itself where it is not joined."""
    modules = dict(periods.gm.named_modules(remove_duplicate=False))
    while is_transparent(value, modules):
        value = value.all_input_nodes[0]
    if (stacked := _stacked(value, periods)) is not None:
        return [part for n in stacked for part in _parts(n, periods)]
    layout = periods.analysis.layout(value)
    if value.target is not aten.cat or not periods.analysis.row_wise(value) or not _last(value, layout):
        return [value]
    inside: Any = value.args[0]
    return [part for n in inside for part in _parts(n, periods)]


def _stacked(value: fx.Node, periods: Periods) -> list[fx.Node] | None:
    """Return the parts of `stack([...], 1).flatten(1)`, which is the same as `cat([...], 1)`; None of another value."""
    stack = value.args[0] if value.target in _FLAT and value.args else None
    if not isinstance(stack, fx.Node) or stack.target is not aten.stack:
        return None
    if not all(map(periods.analysis.row_wise, (value, stack))) or len(shape(value)) != 2 or len(shape(stack)) != 3:
        return None
    dim = stack.args[1] if len(stack.args) > 1 else stack.kwargs.get("dim", 0)
    parts: Any = stack.args[0]
    return list(parts) if dim in (1, -2) and periods.analysis.layout(value).startswith(SAMPLES) else None


def _last(cat: fx.Node, layout: str) -> bool:
    dim = cat.args[1] if len(cat.args) > 1 else cat.kwargs.get("dim", 0)
    return layout.startswith(SAMPLES) and layout.endswith(FEATURES) and dim in (-1, len(layout) - 1)


def spared(periods: Periods, joins: Mapping[fx.Node, Join]) -> set[fx.Node]:
    """Return the nodes that run on distinct rows: products whose rows repeat, and what repeats before and behind them.

    Args:
        periods: of the graph.
        joins: Linears that are split, before whose parts the same holds.
    """
    graph = periods.gm.graph
    repeat = {n for n, p in periods.of.items() if p and n.op.startswith("call_") and n not in periods.sources}
    below = descendants(graph, {n for n in repeat if is_sample_product(n, periods.gm)}, repeat)
    parts = {n for join in joins.values() for n in join.values if n in repeat}
    found = ancestors(graph, below | parts, repeat)
    # a value of several tensors stands where they are picked
    return found | {u for n in found if len(tensors(n)) > 1 for u in n.users if u in repeat}
