"""Write attention that a model spells out as one op, so that the passes after it know it for what it is.

    scores = matmul(q, transpose(k)) * scale + mask
    y      = matmul(softmax(scores), v)                  ->     y = scaled_dot_product_attention(q, k, v, mask, scale=scale)

1. q, k and v are [batch, heads, tokens, features], with equal heads; scale and mask are optional, the scale a number, the
   mask no larger than the scores. What is added is a number also where the mask is bool, so it is cast to the scores' type:
   torch's own op takes a mask of another type and gives garbage.
2. A mask may fill too: masked_fill(scores, mask, -1e9) or where(mask, scores, -1e9). What is added then is so low that no
   score changes it: a query that sees nothing sees all keys alike, as before.
3. Every value between has no other user, and is of one type; nothing that is read is written in place later.
4. The sums are the same, in another order: outputs move in their last bits. A query that sees nothing at all, with a mask of
   -inf throughout, gets NaN as before (`bias_of`), where torch's own op gives zeros.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import fx

from dendrofx.graph.shapes import shape, tensors
from dendrofx.passes.base import Change, Pass, PassResult, calls
from dendrofx.rows.in_place import written_in_place
from dendrofx.runtime.attention import bias_of
from dendrofx.values.meta import DTYPE, SHAPES
from dendrofx.values.numerics import ROUNDING

aten = torch.ops.aten
_CASTS = (aten.to, aten._to_copy, aten.clone, aten.contiguous)
# exp() of a score filled with this or less is 0 beside any other; a score added to the lowest is lost in rounding.
_FORBIDS, _LOWEST = -1e4, -1e38


@dataclass(frozen=True)
class _Mask:
    """A node that is added to scores of a type; or that says where to fill, with values for where it is true and where not."""

    node: fx.Node
    dtype: torch.dtype
    fill: tuple[float, float] | None = None


@dataclass(frozen=True)
class _Attention:
    """What was matched: the last product is replaced by an attention of the others."""

    last: fx.Node
    q: fx.Node
    k: fx.Node
    v: fx.Node
    mask: _Mask | None
    scale: float

    @property
    def reads(self) -> list[fx.Node]:
        return [self.q, self.k, self.v] + ([] if self.mask is None else [self.mask.node])


@dataclass(frozen=True)
class FuseAttention(Pass):
    """Fuse spelled-out attention. Claim: none beyond equality; what does not match is left as it is."""

    def run(self, gm: fx.GraphModule) -> PassResult:
        """See `Pass.run`."""
        written = written_in_place(gm)
        biases: dict[_Mask, fx.Node] = {}
        changed = []
        for softmax in [n for n in gm.graph.nodes if calls(n, aten.softmax)]:
            found = _match(softmax)
            if found is not None and not any(n in written and written[n] > n for n in found.reads):
                name = _replace(gm, found, biases)
                changed.append(Change(name, "fused from a spelled-out attention", (name,)))
        gm.graph.eliminate_dead_code()
        return PassResult(gm, tuple(changed))


def _replace(gm: fx.GraphModule, found: _Attention, biases: dict[_Mask, fx.Node]) -> str:
    """Return the name of the new node."""
    mask = found.mask
    if mask is not None and mask not in biases:
        biases[mask] = _bias(gm.graph, mask)
    bias = None if mask is None else biases[mask]
    with gm.graph.inserting_before(found.last):
        args = (found.q, found.k, found.v, bias, 0.0, False)
        new = gm.graph.create_node(
            "call_function",
            aten.scaled_dot_product_attention,
            args,
            {"scale": found.scale},
            f"{found.last.name}_attention",
        )
    new.meta.update({key: found.last.meta[key] for key in (SHAPES, DTYPE)})
    found.last.replace_all_uses_with(new)
    return str(new.name)


def _bias(graph: fx.Graph, mask: _Mask) -> fx.Node:
    """Return what is added to the scores."""
    added = mask.node
    if mask.fill is not None:
        with graph.inserting_after(added):
            added = graph.call_function(aten.where, (added, *mask.fill))
        added.meta[SHAPES] = mask.node.meta[SHAPES]
    with graph.inserting_after(added):
        bias = graph.call_function(bias_of, (added, mask.dtype))
    bias.meta.update({SHAPES: mask.node.meta[SHAPES], DTYPE: mask.dtype})
    return bias


def _match(softmax: fx.Node) -> _Attention | None:
    """Return the attention around a softmax over keys, or None."""
    weights = _through_casts(softmax)
    last = _sole_user(weights)
    if last is None or not calls(last, aten.matmul) or last.args[0] is not weights:
        return None
    dtype = softmax.meta.get(DTYPE)
    if softmax.args[1] not in (-1, 3) or dtype not in ROUNDING or last.meta.get(DTYPE) != dtype:
        return None
    scores, mask = _without_mask(_node(softmax, 0))
    scores, scale = _without_scale(scores)
    if not calls(scores, aten.matmul) or not _sole_user(scores) or scores.meta.get(DTYPE) != dtype:
        return None
    q, keys, v = _node(scores, 0), _node(scores, 1), _node(last, 1)
    if not calls(keys, aten.transpose) or {d % 4 for d in keys.args[1:] if isinstance(d, int)} != {2, 3}:
        return None
    k = _node(keys, 0)
    same = _heads(q) is not None and _heads(q) == _heads(k) == _heads(v)
    return _Attention(last, q, k, v, mask, scale) if same else None


def _without_mask(scores: fx.Node) -> tuple[fx.Node, _Mask | None]:
    """Return what a mask of four axes was added to or filled, unless that made it larger, and the mask."""
    given = [n for n in scores.args if isinstance(n, fx.Node) and tensors(n)]
    if scores.kwargs or not _sole_user(scores) or len(given) != 2:
        return scores, None
    inner, mask = given[::-1] if calls(scores, aten.where) else given
    found = _mask(scores, mask)
    fits = len(shape(mask)) == 4 and shape(inner) == shape(scores)
    return (inner, found) if fits and found is not None else (scores, None)


def _mask(scores: fx.Node, mask: fx.Node) -> _Mask | None:
    if calls(scores, aten.add):
        return _Mask(mask, scores.meta[DTYPE])
    low = scores.args[2] if len(scores.args) == 3 else None
    if not isinstance(low, int | float) or low > _FORBIDS:
        return None
    lowest = low if math.isinf(low) else max(_LOWEST, torch.finfo(scores.meta[DTYPE]).min)
    if calls(scores, aten.masked_fill):
        return _Mask(mask, scores.meta[DTYPE], (lowest, 0.0))
    return _Mask(mask, scores.meta[DTYPE], (0.0, lowest)) if calls(scores, aten.where) else None


def _without_scale(scores: fx.Node) -> tuple[fx.Node, float]:
    """Return what was multiplied or divided by a number, and the factor."""
    if not (calls(scores, aten.mul) or calls(scores, aten.div)) or scores.kwargs or not _sole_user(scores):
        return scores, 1.0
    number = scores.args[1]
    if not isinstance(number, int | float):
        return scores, 1.0
    return _node(scores, 0), float(number) if scores.target is aten.mul else 1 / number


def _node(node: fx.Node, index: int) -> fx.Node:
    """Return an argument that the op's schema says is a tensor."""
    found = node.args[index]
    assert isinstance(found, fx.Node)
    return found


def _sole_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _through_casts(node: fx.Node) -> fx.Node:
    """Return the last of the casts that follow a node and change nothing, or itself."""
    dtype = node.meta.get(DTYPE)
    while (user := _sole_user(node)) is not None and user.target in _CASTS and user.meta.get(DTYPE) == dtype:
        node = user
    return node


def _heads(node: fx.Node) -> tuple[int | str, ...] | None:
    """Return batch and heads of [batch, heads, tokens, features]; None for other shapes."""
    sizes = shape(node) if tensors(node) else ()
    return sizes[:2] if len(sizes) == 4 and isinstance(sizes[3], int) else None
