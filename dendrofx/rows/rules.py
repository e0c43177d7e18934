"""One rule per op: does row (b, t) of the output read row (b, t) of the inputs, and nothing else of any sample?

A rule gets the node and its layouts and returns the reason why not, or None when the op is row-wise. Layouts are definitions
(see `layout.py`): rows may begin anywhere, at an input, a position table or the output of attention; only ops need a proof.
An op without a rule is not row-wise.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
from torch import fx, nn

from dendrofx.rows.layout import FEATURES, OPAQUE, SAMPLES, TOKENS, Shape, shape

aten = torch.ops.aten


@dataclass(frozen=True)
class Op:
    """A node as its rule sees it.

    Attributes:
        node: the call.
        out: layout of its output.
        ins: layouts of its tensor inputs, in order.
        first: shape of the first of them; result: of the output.
        module: what a call_module calls.
    """

    node: fx.Node
    out: str
    ins: tuple[str, ...]
    first: Shape
    result: Shape
    module: nn.Module | None = None

    def argument(self, index: int, name: str, default: Any = None) -> Any:  # noqa: ANN401
        """An argument by position or name."""
        args = self.node.args
        return args[index] if len(args) > index else self.node.kwargs.get(name, default)


Rule = Callable[[Op], "str | None"]


def has_rows(layout: str) -> bool:
    """Whether a layout has one sample axis and one token axis, and all others are features."""
    return layout.count(SAMPLES) == 1 and layout.count(TOKENS) == 1 and OPAQUE not in layout


def fixed(layouts: Iterable[str]) -> bool:
    """Whether no layout counts samples or tokens: weights and constants."""
    return not set("".join(layouts)) & {SAMPLES, TOKENS, OPAQUE}


def elementwise(op: Op) -> str | None:
    """Broadcasting must pair a row axis with itself or with a size of one."""
    for layout in op.ins:
        for mine, theirs in zip_longest(reversed(layout), reversed(op.out), fillvalue=FEATURES):
            if mine not in (theirs, FEATURES):
                return f"broadcasting pairs axis '{mine}' of {layout} with axis '{theirs}' of {op.out}"
    return None


def moves_axes(op: Op) -> str | None:
    """The letters move with their axes."""
    return None


def reshapes(op: Op) -> str | None:
    """Features may be split and merged between the row axes, never across one."""
    if _skeleton(op.ins[0], op.first) == _skeleton(op.out, op.result):
        return None
    return f"reshaping {op.ins[0]} to {op.out} moves values across rows"


def _skeleton(layout: str, sizes: Shape) -> list[int | str]:
    """Row axes, and between them how many features: [1, 'b', 1, 't', 384]."""
    found: list[int | str] = [1]
    for letter, size in zip(layout, sizes, strict=True):
        if letter == FEATURES:
            found[-1] = int(found[-1]) * int(size)
        else:
            found += [letter, 1]
    return found


def linear(op: Op) -> str | None:
    """A product with fixed weights, over the last axis."""
    if not fixed(op.ins[1:]):
        return "its second operand has rows too"
    return None if op.ins[0].endswith(FEATURES) else f"it sums over axis '{op.ins[0][-1]}'"


def linear_module(op: Op) -> str | None:
    """A call of an `nn.Linear`."""
    if not isinstance(op.module, nn.Linear):
        return f"no rule for {type(op.module).__name__}"
    return linear(op)


def normalises(op: Op) -> str | None:
    """Layer and RMS norms over trailing feature axes."""
    axes = op.ins[0][-len(op.node.args[1]) :]  # type: ignore[arg-type]
    if not fixed(op.ins[1:]):
        return "its weights have rows"
    return None if set(axes) == {FEATURES} else f"it normalises over axes '{axes}'"


def embeds(op: Op) -> str | None:
    """A fixed table, read by indices."""
    return None if fixed(op.ins[:1]) else "its table has rows"


def over(index: int, name: str = "dim") -> Rule:
    """An op along the dims in one of its arguments, which must all be features."""

    def rule(op: Op) -> str | None:
        dims = op.argument(index, name)
        dims = list(dims) if isinstance(dims, list | tuple) else [dims]
        if not dims or any(not isinstance(d, int) for d in dims):
            return "it works over all axes at once"
        across = [op.ins[0][d] for d in dims if op.ins[0][d] != FEATURES]
        return f"it works along axis '{across[0]}'" if across else None

    return rule


def concatenates(op: Op) -> str | None:
    """Like layouts, along features."""
    if len(set(op.ins)) != 1:
        return f"it joins {' and '.join(op.ins)}"
    dim = op.argument(1, "dim", 0)
    return None if op.ins[0][dim] == FEATURES else f"it joins along axis '{op.ins[0][dim]}'"


def stacks(op: Op) -> str | None:
    """Like layouts, along a new axis."""
    return None if len(set(op.ins)) == 1 else f"it stacks {' and '.join(op.ins)}"


def slices(op: Op) -> str | None:
    """Of features, or the whole of a row axis."""
    dim = op.argument(1, "dim", 0)
    if op.ins[0][dim] == FEATURES or op.first == op.result:
        return None
    return f"it cuts axis '{op.ins[0][dim]}'"


def pads(op: Op) -> str | None:
    """At trailing feature axes."""
    axes = op.ins[0][-(len(op.node.args[1]) // 2) :]  # type: ignore[arg-type]
    return None if set(axes) <= {FEATURES} else f"it pads axes '{axes}'"


def _ops(names: str) -> list[Any]:
    return [getattr(aten, name) for name in names.split() if hasattr(aten, name)]


ELEMENTWISE = _ops(
    "add sub rsub mul div neg pow sqrt rsqrt exp expm1 log log1p tanh sigmoid relu relu6 gelu silu mish elu leaky_relu hardswish"
    " hardsigmoid hardtanh softplus celu selu abs sign floor ceil round square reciprocal cos sin erf clamp clamp_min clamp_max"
    " minimum maximum where masked_fill eq ne ge gt le lt logical_not logical_and logical_or __and__ __or__ bitwise_not bitwise_and"
    " bitwise_or isnan isfinite isinf to _to_copy clone contiguous detach alias lift_fresh zeros_like ones_like full_like"
    " type_as float nan_to_num addcmul lerp floor_divide remainder"
)
RULES: dict[Any, Rule] = {
    **dict.fromkeys(ELEMENTWISE, elementwise),
    **dict.fromkeys(_ops("expand expand_as"), elementwise),
    **dict.fromkeys(_ops("transpose permute unsqueeze movedim swapaxes t numpy_T mT"), moves_axes),
    **dict.fromkeys(_ops("reshape flatten unflatten"), reshapes),
    **dict.fromkeys(_ops("linear matmul"), linear),
    **dict.fromkeys(_ops("layer_norm rms_norm"), normalises),
    **dict.fromkeys(
        _ops("softmax log_softmax sum mean amax amin argmax select squeeze unbind cumsum norm std var glu"), over(1)
    ),
    **dict.fromkeys(_ops("split split_with_sizes chunk linalg_vector_norm"), over(2)),
    aten.glu: over(1),
    aten.embedding: embeds,
    aten.cat: concatenates,
    aten.stack: stacks,
    aten.slice: slices,
    aten.constant_pad_nd: pads,
}
# Ops whose integer arguments are sizes, which count samples and tokens anew on live rows; elsewhere (x / tokens) they are values.
SIZED = frozenset(_ops("reshape flatten unflatten expand slice"))


def rule_of(node: fx.Node) -> Rule | None:
    """The rule of a call, None for an op without one."""
    if node.op == "call_module":
        return linear_module
    if node.op != "call_function":
        return None
    return RULES.get(node.target)


def is_getitem(node: fx.Node) -> bool:
    """Whether a node picks one of several tensors."""
    return node.op == "call_function" and node.target is operator.getitem


__all__ = ["RULES", "SIZED", "Op", "Rule", "fixed", "has_rows", "is_getitem", "rule_of", "shape"]
