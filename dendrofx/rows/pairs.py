"""Products of pairs: of two concatenations along features every row with every row, and a selection of these products.

    %left     = cat([%dense, %user, %item], 1)              [samples, rows, width]
    %products = bmm(%left, transpose(%right, 1, 2))         [samples, rows, rows]
    %pairs    = index(%products, [None, %first, %second])   [samples, pairs]

A product of two of the user's rows repeats with the user, though the concatenations do not. So the pairs fall into blocks, each of
some parts of the left side with some of the right: what repeats is one block, and of the others each is multiplied once. Where both
sides are the same value, `a * b` is `b * a`: the one that repeats more stands right, which leaves fewer blocks.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from dendrofx.graph.shapes import shape, tensors
from dendrofx.rows.layout import SAMPLES
from dendrofx.rows.periods import Period, Periods, joined, rank

aten = torch.ops.aten
_FLAT = (aten.flatten, aten.reshape, aten.view)
# What places of pairs may be made by, from parameters and buffers or from nothing.
_MAKES = (aten.lift_fresh, aten.lift_fresh_copy, aten.detach, aten.clone, aten.to, aten.select, aten.unbind, operator.getitem,
          aten.tril_indices, aten.triu_indices)  # fmt: skip


@dataclass(frozen=True)
class Block:
    """Products of parts of both sides that repeat alike.

    Attributes:
        period: in which they repeat.
        left, right: the parts, [samples, rows, width] or one row's [samples, width].
        pick: which of their products are selected, row by row.
        places: where these stand in the selection.
        products: how many there are without a selection.
    """

    period: Period | None
    left: tuple[fx.Node, ...]
    right: tuple[fx.Node, ...]
    pick: tuple[int, ...]
    places: tuple[int, ...]

    @property
    def products(self) -> int:
        """How many products there are without a selection."""
        return _count(self.left) * _count(self.right)


@dataclass(frozen=True)
class Pairs:
    """A selection of products of pairs.

    Attributes:
        product: the node of all products.
        width: of the values that are multiplied.
        left, right: parts of both sides; right is empty where both are the same.
        pick: which of all products are selected, row by row.
        blocks: of these.
    """

    product: fx.Node
    width: int
    left: tuple[fx.Node, ...]
    right: tuple[fx.Node, ...]
    pick: tuple[int, ...]
    blocks: tuple[Block, ...]

    @property
    def products(self) -> int:
        """How many products there are without a selection."""
        return _count(self.left) * _count(self.right or self.left)


def find_pairs(value: fx.Node, periods: Periods) -> Pairs | None:
    """Return what products a value selects, where some repeat in more rows than the value; None of any other."""
    selected = _selected(value, periods)
    if selected is None or periods[value] == frozenset():
        return None
    product, pick = selected
    left, turned = product.args[:2]
    if not isinstance(left, fx.Node) or not isinstance(turned, fx.Node) or not _is_turned(turned):
        return None
    right = turned.all_input_nodes[0]
    if not all(_is_matrix(side, periods) for side in (left, right)) or not periods.analysis.row_wise(turned):
        return None
    sides = [_parts(side, periods) for side in (left, right)]
    blocks = tuple(_blocks(sides, pick, left is right, periods))
    if len({b.period for b in blocks}) < 2:
        return None
    width = int(shape(left)[-1])
    return Pairs(product, width, tuple(sides[0]), () if left is right else tuple(sides[1]), tuple(pick), blocks)


def _selected(value: fx.Node, periods: Periods) -> tuple[fx.Node, list[int]] | None:
    """Return the batched product that a value selects from, and which of its products."""
    given = value.args[0] if value.op == "call_function" and value.args else None
    if not isinstance(given, fx.Node) or not periods.analysis.row_wise(value) or len(given.users) > 1:
        return None
    if value.target in _FLAT and len(shape(value)) == 2:
        return (given, list(range(math.prod(map(int, shape(given)[1:]))))) if _is_product(given, periods) else None
    if value.target is aten.index_select and len(value.args) == 3 and value.args[1] in (1, -1):
        return _picked_ones(given, [value.args[2]], periods)
    index: Any = value.args[1] if value.target is aten.index else [0]
    if index[0] is not None or None in index[1:] or len(shape(value)) != 2:
        return None
    return (_picked_pairs if _is_product(given, periods) else _picked_ones)(given, index[1:], periods)


def _picked_pairs(product: fx.Node, index: Sequence[object], periods: Periods) -> tuple[fx.Node, list[int]] | None:
    """Return a selection by the places of a row and of a column."""
    both = [_constant(i, periods.gm) for i in index]
    if len(both) != 2 or not all(map(_numbers, both)) or len(both[0]) != len(both[1]):
        return None
    rows = [int(r) for r in shape(product)[1:]]
    first, second = ((i % r).tolist() for i, r in zip(both, rows, strict=True))
    return product, [i * rows[1] + j for i, j in zip(first, second, strict=True)]


def _picked_ones(value: fx.Node, index: Sequence[object], periods: Periods) -> tuple[fx.Node, list[int]] | None:
    """Return a selection of a selection."""
    selected = _selected(value, periods)
    found: Any = _constant(index[0], periods.gm) if len(index) == 1 else None
    if selected is None or not _numbers(found):
        return None
    return selected[0], [selected[1][i] for i in found.tolist()]


def _numbers(index: object) -> bool:
    return isinstance(index, Tensor) and index.dim() == 1 and index.dtype == torch.int64


def _is_product(node: fx.Node, periods: Periods) -> bool:
    """Tell whether a node multiplies matrices of each sample."""
    return node.target in (aten.bmm, aten.matmul) and periods.analysis.row_wise(node) and _is_matrix(node, periods)


def _is_matrix(value: fx.Node, periods: Periods) -> bool:
    """Tell whether a value is a matrix of each sample, of fixed sizes."""
    sizes = shape(value)[1:] if tensors(value) else ()
    return len(sizes) == 2 and all(isinstance(s, int) for s in sizes) and periods.analysis.layout(value)[0] == SAMPLES


def _is_turned(node: fx.Node) -> bool:
    """Tell whether a node swaps the last of three axes with the one before."""
    if node.op != "call_function" or len(node.all_input_nodes) != 1:
        return False
    if node.target in (aten.transpose, aten.swapaxes, aten.swapdims):
        return {int(d) % 3 for d in node.args[1:3]} == {1, 2}  # type: ignore[arg-type]
    return node.target is aten.mT or (node.target is aten.permute and list(node.args[1]) == [0, 2, 1])  # type: ignore[arg-type]


def _parts(value: fx.Node, periods: Periods) -> list[fx.Node]:
    """Return the values that one is joined from along its rows; itself where it repeats, or is not joined."""
    if value.target not in (aten.cat, aten.stack) or not periods.analysis.row_wise(value):
        return [value]
    dim = value.args[1] if len(value.args) > 1 else value.kwargs.get("dim", 0)
    inside: Any = value.args[0]
    if dim not in (1, -2) or len(shape(value)) != 3 or len({periods[n] for n in inside}) == 1:
        return [value]
    return [part for n in inside for part in _parts(n, periods)] if value.target is aten.cat else list(inside)


def _constant(value: object, gm: fx.GraphModule) -> Any:  # noqa: ANN401  (what a node gives)
    """Return the value of a node that reads buffers alone; None of any other."""
    if not isinstance(value, fx.Node):
        return None
    if value.op == "get_attr":
        owner, _, name = str(value.target).rpartition(".")
        return getattr(gm.get_submodule(owner), name)
    if value.op != "call_function" or value.target not in _MAKES:
        return None
    given = {n: _constant(n, gm) for n in value.all_input_nodes}
    if any(v is None for v in given.values()):
        return None
    args, kwargs = fx.node.map_arg((value.args, value.kwargs), lambda n: given[n])
    make: Any = value.target
    return make(*args, **kwargs)


def _count(parts: Sequence[fx.Node]) -> int:
    """Count the rows of parts."""
    return sum(_rows(part) for part in parts)


def _rows(part: fx.Node) -> int:
    return int(shape(part)[1]) if len(shape(part)) == 3 else 1


def _blocks(sides: Sequence[Sequence[fx.Node]], pick: Sequence[int], same: bool, periods: Periods) -> Iterator[Block]:
    """Cut selected products into blocks, by what they repeat in, and what their left rows do."""
    owners = [[(n, i) for n, part in enumerate(side) for i in range(_rows(part))] for side in sides]
    own = [[periods[part] for part in side] for side in sides]
    wide = len(owners[1])
    found: dict[tuple[Period | None, Period | None], list[tuple[int, int, int]]] = {}
    for place, which in enumerate(pick):
        i, j = divmod(which, wide)
        if same and rank(own[0][owners[0][i][0]]) < rank(own[0][owners[0][j][0]]):
            i, j = j, i
        p, q = own[0][owners[0][i][0]], own[1][owners[1][j][0]]
        found.setdefault((joined([p, q]), p), []).append((place, i, j))
    for (period, _), chosen in found.items():
        used = [sorted({owners[side][c[1 + side]][0] for c in chosen}) for side in (0, 1)]
        rows = [{r: k for k, r in enumerate(r for r, o in enumerate(owners[s]) if o[0] in used[s])} for s in (0, 1)]
        at = tuple(rows[0][i] * len(rows[1]) + rows[1][j] for _, i, j in chosen)
        left, right = (tuple(sides[s][n] for n in used[s]) for s in (0, 1))
        yield Block(period, left, right, at, tuple(place for place, _, _ in chosen))


def is_read_alone(value: fx.Node, reader: fx.Node) -> bool:
    """Tell whether a value, and what is made of it, reaches one node alone."""
    while value is not reader:
        if len(value.users) != 1:
            return False
        value = next(iter(value.users))
    return True


__all__ = ["Block", "Pairs", "find_pairs", "is_read_alone"]
