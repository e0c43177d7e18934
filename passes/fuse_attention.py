"""Write attention that a model spells out as one op, so that the passes after it know it for what it is.

    scores = matmul(q, transpose(k)) * scale + mask
    y      = matmul(softmax(scores), v)                  ->     y = scaled_dot_product_attention(q, k, v, mask, scale=scale)

1. q, k and v are [batch, heads, tokens, features]; scale and mask are optional, the scale a number.
2. Every value between has no other user.
3. The sums are the same, in another order: outputs move in their last bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from dendrofx.passes.base import Change, Pass, PassResult
from dendrofx.rows.layout import SHAPES, shape, tensors

aten = torch.ops.aten
_CASTS = (aten.to, aten._to_copy, aten.dropout, aten.clone, aten.contiguous)


@dataclass(frozen=True)
class FuseAttention(Pass):
    """Fuse spelled-out attention. Claim: none beyond equality; what does not match is left as it is."""

    def run(self, gm: fx.GraphModule) -> PassResult:
        """See `Pass.run`."""
        changed = []
        for node in list(gm.graph.nodes):
            if node.op == "call_function" and node.target is aten.softmax and (found := _match(node)) is not None:
                last, q, k, v, mask, scale = found
                with gm.graph.inserting_before(last):
                    args = (q, k, v, mask, 0.0, False)
                    new = gm.graph.create_node(
                        "call_function",
                        aten.scaled_dot_product_attention,
                        args,
                        {"scale": scale},
                        f"{last.name}_attention",
                    )
                new.meta[SHAPES] = last.meta[SHAPES]
                last.replace_all_uses_with(new)
                changed.append(Change(new.name, "fused from a spelled-out attention", (new.name,)))
        gm.graph.eliminate_dead_code()
        return PassResult(gm, tuple(changed))


def _match(softmax: fx.Node) -> tuple[fx.Node, fx.Node, fx.Node, fx.Node, Any, float] | None:
    """The last product, q, k, v, mask and scale around a softmax over keys, or None."""
    last = _through(softmax)
    if softmax.args[1] not in (-1, 3) or last is None or last.target is not aten.matmul:
        return None
    if not _is_heads(last.args[1]) or not _sole(softmax.args[0]):
        return None
    scores, mask, scale = softmax.args[0], None, 1.0
    assert isinstance(scores, fx.Node)
    if scores.target is aten.add and not scores.kwargs:
        scores, mask = scores.args  # type: ignore[assignment]
        if not (isinstance(mask, fx.Node) and tensors(mask) and len(shape(mask)) == 4 and _sole(scores)):
            return None
    if scores.target in (aten.mul, aten.div) and isinstance(scores.args[1], int | float):
        scale = scores.args[1] if scores.target is aten.mul else 1 / scores.args[1]
        scores = scores.args[0]  # type: ignore[assignment]
    if not (isinstance(scores, fx.Node) and _sole(scores) and scores.target is aten.matmul):
        return None
    q, keys = scores.args
    if not (_is_heads(q) and isinstance(keys, fx.Node) and keys.target is aten.transpose and _is_heads(keys.args[0])):
        return None
    if {int(d) % 4 for d in keys.args[1:]} != {2, 3}:  # type: ignore[arg-type]
        return None
    return last, q, keys.args[0], last.args[1], mask, float(scale)  # type: ignore[return-value]


def _through(node: fx.Node) -> fx.Node | None:
    """The only user of a node, casts that change nothing left out."""
    while _sole(node):
        node = next(iter(node.users))
        if node.target not in _CASTS:
            return node
    return None


def _sole(node: object) -> bool:
    return isinstance(node, fx.Node) and len(node.users) == 1


def _is_heads(value: object) -> bool:
    return (
        isinstance(value, fx.Node)
        and bool(tensors(value))
        and len(shape(value)) == 4
        and isinstance(shape(value)[-1], int)
    )
