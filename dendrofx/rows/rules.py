"""One rule per op: does row (b, t) of the output read row (b, t) of the inputs, and nothing else of any sample?

A rule gets the node and its layouts and returns the reason why not, or None when the op is row-wise (`op_rules.py`). Layouts are
definitions (see `layout.py`): rows may begin anywhere, at an input, a position table or the output of attention; only ops need
a proof. An op without a rule is not row-wise: what draws random numbers or writes in place has none.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from dendrofx.rows import op_rules
from dendrofx.rows.op import Rule

aten = torch.ops.aten


def _ops(names: str) -> list[Any]:
    return [getattr(aten, name) for name in names.split() if hasattr(aten, name)]


ELEMENTWISE = _ops(
    "add sub subtract rsub mul multiply div divide true_divide floor_divide remainder fmod neg negative pow square reciprocal sqrt"
    " rsqrt exp exp2 expm1 log log2 log10 log1p sin cos tan sinh cosh tanh asin acos atan atan2 erf erfc sigmoid log_sigmoid logit"
    " relu relu6 gelu silu mish elu celu selu leaky_relu hardswish hardsigmoid hardtanh softplus threshold hardshrink softshrink"
    " abs absolute sign floor ceil round trunc frac clamp clip clamp_min clamp_max minimum maximum where masked_fill nan_to_num"
    " addcmul addcdiv lerp eq ne ge gt le lt not_equal greater_equal greater less_equal less isnan isinf isfinite logical_not"
    " logical_and logical_or logical_xor bitwise_not bitwise_and bitwise_or bitwise_xor __and__ __or__ __xor__ to _to_copy type_as"
    " clone contiguous detach alias lift_fresh zeros_like ones_like full_like expand_as"
)
# Ops whose computed integer arguments are sizes, which count samples and tokens anew on live rows; elsewhere (x / tokens) they
# are values.
_SIZED: dict[Any, Rule] = {
    aten.expand: op_rules.sized(1, "size", op_rules.elementwise),
    aten.repeat: op_rules.sized(1, "repeats", op_rules.elementwise),
    aten.reshape: op_rules.sized(1, "shape", op_rules.reshapes),
    aten.flatten: op_rules.reshapes,
    aten.unflatten: op_rules.sized(2, "sizes", op_rules.reshapes, first=1),
    aten.slice: op_rules.slices,
    **dict.fromkeys(_ops("zeros ones full"), op_rules.sized(0, "size", op_rules.makes)),
    **dict.fromkeys(_ops("new_zeros new_ones new_full"), op_rules.sized(1, "size", op_rules.makes)),
}
RULES: dict[Any, Rule] = {
    **_SIZED,
    **dict.fromkeys(ELEMENTWISE, op_rules.elementwise),
    **dict.fromkeys(_ops("transpose permute unsqueeze movedim swapaxes swapdims t numpy_T mT"), op_rules.moves_axes),
    **dict.fromkeys(_ops("layer_norm rms_norm"), op_rules.normalises),
    **dict.fromkeys(
        _ops("softmax log_softmax logsumexp cumsum cumprod sum mean prod amax amin var std any all"), op_rules.over(1)
    ),
    **dict.fromkeys(_ops("argmax argmin select narrow index_select squeeze unbind"), op_rules.over(1)),
    **dict.fromkeys(_ops("sort argsort glu"), op_rules.over(1, default=-1)),
    **dict.fromkeys(_ops("norm linalg_vector_norm split split_with_sizes chunk repeat_interleave"), op_rules.over(2)),
    **dict.fromkeys(_ops("max min"), op_rules.extreme),
    **dict.fromkeys(_ops("constant_pad_nd pad"), op_rules.pads),
    aten.flip: op_rules.over(1, "dims"),
    aten.roll: op_rules.over(2, "dims"),
    aten.topk: op_rules.over(2, default=-1),
    aten.linear: op_rules.linear,
    aten.matmul: op_rules.matmul,
    aten.embedding: op_rules.embeds,
    aten.one_hot: op_rules.one_hot,
    aten.gather: op_rules.gathers,
    aten.cat: op_rules.along(1),
    aten.stack: op_rules.stacks,
}
SIZED = frozenset(_SIZED)


def rule_of(node: fx.Node) -> Rule | None:
    """Return the rule of a call, None for an op without one."""
    if node.op == "call_module":
        return op_rules.linear_module
    return RULES.get(node.target) if node.op == "call_function" else None


def is_getitem(node: fx.Node) -> bool:
    """Tell whether a node picks one of several tensors."""
    return node.op == "call_function" and node.target is operator.getitem


__all__ = ["RULES", "SIZED", "is_getitem", "rule_of"]
