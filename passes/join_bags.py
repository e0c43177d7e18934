"""Write bags of embeddings that count their ids in one axis as one operation per sample.

    %flat   = reshape(%x, [-1])                                  %bag = bag_rows(%weight, %x, 1, None, None)
    %begins = mul(arange(samples), ids)                    ->
    %bags   = embedding_bag(%weight, %flat, %begins, ...)
    %bag    = getitem(%bags, 0)

1. Every bag has the ids of one sample, as `nn.EmbeddingBag` is called with [samples, ids].
2. Bags of other lengths, whose offsets are inputs, are left alone: a sample's ids are not in a row of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from dendrofx.graph.shapes import shape, tensors
from dendrofx.passes.base import Change, PassOnShapes, PassResult, calls
from dendrofx.rows.rules import is_getitem
from dendrofx.runtime.bags import bag_rows
from dendrofx.values.meta import DTYPE, SHAPES

aten = torch.ops.aten


@dataclass(frozen=True)
class JoinBags(PassOnShapes):
    """Join bags with the reshaping before them. Claim: none beyond equality; what cannot be joined is left as it is."""

    def run(self, gm: fx.GraphModule) -> PassResult:
        """See `Pass.run`."""
        changed = []
        for node in [n for n in gm.graph.nodes if calls(n, aten.embedding_bag)]:
            if (args := _joined(node)) is not None:
                (picked,) = node.users
                with gm.graph.inserting_before(picked):
                    new = gm.graph.create_node("call_function", bag_rows, args, name=f"{picked.name}_bag")
                new.meta.update({k: v for k, v in picked.meta.items() if k in (SHAPES, DTYPE)})
                picked.replace_all_uses_with(new)
                changed.append(Change(node.name, "reads a sample's ids", (new.name,)))
        gm.graph.eliminate_dead_code()
        return PassResult(gm, tuple(changed))


def _joined(node: fx.Node) -> tuple[Any, ...] | None:
    """Return the arguments of the joined form; None where bags are not those of samples."""
    given: list[Any] = [*node.args, *[None] * 9][:9]
    weight, flat, begins, _, mode, _, weights, last, padding = given
    users = list(node.users)
    if last or node.kwargs or len(users) != 1 or not is_getitem(users[0]) or users[0].args[1] != 0:
        return None
    x, w = _flattened(flat), None if weights is None else _flattened(weights)
    if x is None or (w is None) != (weights is None) or not _begins(begins, x):
        return None
    return weight, x, mode, w, padding


def _flattened(node: object) -> fx.Node | None:
    """Return the matrix whose values a node has in one axis."""
    if not isinstance(node, fx.Node) or not calls(node, aten.reshape) or len(shape(node)) != 1:
        return None
    x = node.args[0]
    return x if isinstance(x, fx.Node) and len(shape(x)) == 2 else None


def _begins(node: object, x: fx.Node) -> bool:
    """Tell whether a node counts where the rows of a matrix begin: 0, ids, 2 * ids, ..."""
    if not isinstance(node, fx.Node) or not calls(node, aten.mul) or len(node.args) != 2:
        return False
    count, step = node.args
    counted = isinstance(count, fx.Node) and calls(count, aten.arange) and len(count.args) == 1 and bool(tensors(count))
    return counted and shape(count)[0] == shape(x)[0] and _size(step) == shape(x)[1]  # type: ignore[arg-type]


def _size(value: object) -> object:
    return value.meta.get(SHAPES) if isinstance(value, fx.Node) else value
