"""Why ops are row-wise: one function per kind of op, which returns the reason why not, or None.

Live rows are one long sample, so a row-wise op must also be right for other counts of samples and tokens: a size among its
arguments has to be the computed count itself, never a number that was large enough for the rows of one sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

import torch
from torch import fx, nn

from dendrofx.graph.activations import has_hooks
from dendrofx.graph.shapes import Shape
from dendrofx.rows.layout import FEATURES, fixed
from dendrofx.rows.op import Op, Rule
from dendrofx.values.meta import SHAPES

aten = torch.ops.aten
_WHOLE = 2**63 - 1  # the end of a slice that has none


def elementwise(op: Op) -> str | None:
    """Take broadcasting that pairs a row axis with itself or with a size of one."""
    for layout in op.ins:
        for mine, theirs in zip_longest(reversed(layout), reversed(op.out), fillvalue=FEATURES):
            if mine not in (theirs, FEATURES):
                return f"broadcasting pairs axis '{mine}' of {layout} with axis '{theirs}' of {op.out}"
    return None


def moves_axes(op: Op) -> str | None:
    """Take what moves axes: their letters move with them."""
    return None


def sized(index: int, name: str, rule: Rule, first: int | None = None) -> Rule:
    """Take an op with a list of sizes, whose computed ones count the axis that they stand for.

    Args:
        index: of the list among the arguments.
        name: of the list.
        rule: what else must hold.
        first: the argument that says which axis the first size is of; None for axis 0.
    """

    def checked(op: Op) -> str | None:
        axes = op.out if first is None else op.out[op.argument(first, "dim") % len(op.ins[0]) :]
        for size, axis in zip(op.argument(index, name, ()), axes, strict=False):
            if op.counts(size) not in (axis, FEATURES):
                return f"its size {size.meta.get(SHAPES)} does not count axis '{axis}'"
        return rule(op)

    return checked


def reshapes(op: Op) -> str | None:
    """Take what splits and merges features between the row axes, never across one."""
    if _skeleton(op.ins[0], op.first) == _skeleton(op.out, op.result):
        return None
    return f"reshaping {op.ins[0]} to {op.out} moves values across rows"


def _skeleton(layout: str, sizes: Shape) -> list[int | str]:
    """Return row axes, and between them how many features: [1, 'b', 1, 't', 384]."""
    found: list[int | str] = [1]
    for letter, size in zip(layout, sizes, strict=True):
        if letter == FEATURES:
            found[-1] = int(found[-1]) * int(size)
        else:
            found += [letter, 1]
    return found


def makes(op: Op) -> str | None:
    """Take a constant, in every row."""
    fill = op.argument(1 if op.node.target is aten.full else 2, "fill_value")
    return "it is filled with a computed value" if isinstance(fill, fx.Node) else None


def linear(op: Op) -> str | None:
    """Take a product with fixed weights, over the last axis."""
    if not fixed(op.ins[1:]):
        return "its second operand has rows too"
    return None if op.ins[0].endswith(FEATURES) else f"it sums over axis '{op.ins[0][-1]}'"


def linear_module(op: Op) -> str | None:
    """Take a call of an `nn.Linear`."""
    if type(op.module) is not nn.Linear:
        return f"no rule for {type(op.module).__name__}"
    return "its hooks may read other rows" if has_hooks(op.module) else linear(op)


def matmul(op: Op) -> str | None:
    """Take a product with fixed weights, or, in every row, of two matrices of features."""
    matrices = all(layout.endswith(FEATURES * 2) for layout in op.ins)
    return elementwise(op) if matrices and len(op.ins) == 2 else linear(op)


def normalises(op: Op) -> str | None:
    """Take layer and RMS norms over trailing feature axes."""
    axes = op.ins[0][-len(op.argument(1, "normalized_shape")) :]
    if not fixed(op.ins[1:]):
        return "its weights have rows"
    return None if set(axes) == {FEATURES} else f"it normalises over axes '{axes}'"


def embeds(op: Op) -> str | None:
    """Take a fixed table, read by indices."""
    return None if fixed(op.ins[:1]) else "its table has rows"


def one_hot(op: Op) -> str | None:
    """Take a given number of classes; without it, the largest index of all rows decides."""
    return None if op.argument(1, "num_classes", -1) != -1 else "its width depends on all rows"


def over(index: int, name: str = "dim", default: int | None = None) -> Rule:
    """Take an op along the dims in one of its arguments, which must all be features; its other tensors are fixed."""

    def rule(op: Op) -> str | None:
        dims = op.argument(index, name, default)
        dims = list(dims) if isinstance(dims, Sequence) else [dims]
        if not fixed(op.ins[1:]):
            return "its second operand has rows too"
        if not dims or any(type(d) is not int for d in dims):
            return "it works over all axes at once"
        across = [op.ins[0][d] for d in dims if op.ins[0][d] != FEATURES]
        return f"it works along axis '{across[0]}'" if across else None

    return rule


def extreme(op: Op) -> str | None:
    """Take `max` and `min` of two tensors, or along a dim."""
    return elementwise(op) if isinstance(op.argument(1, "other"), fx.Node) else over(1)(op)


def gathers(op: Op) -> str | None:
    """Take features that are picked by indices of the same row."""
    if len(set(op.ins)) != 1:
        return f"it picks from {op.ins[0]} by indices laid out {op.ins[-1]}"
    return along(1)(op)


def along(index: int) -> Rule:
    """Take values of one layout, along features: `cat`, `gather`."""

    def rule(op: Op) -> str | None:
        if len(set(op.ins)) != 1:
            return f"it joins {' and '.join(op.ins)}"
        axis = op.ins[0][op.argument(index, "dim", 0)]
        return None if axis == FEATURES else f"it works along axis '{axis}'"

    return rule


def stacks(op: Op) -> str | None:
    """Take values of one layout, along a new axis."""
    return None if len(set(op.ins)) == 1 else f"it stacks {' and '.join(op.ins)}"


def slices(op: Op) -> str | None:
    """Take slices of features, between given numbers; or a row axis from 0 to its own count."""
    axis = op.ins[0][op.argument(1, "dim", 0)]
    start, end = op.argument(2, "start") or 0, op.argument(3, "end", _WHOLE)
    if axis == FEATURES:
        computed = next((s.meta.get(SHAPES) for s in (start, end) if isinstance(s, fx.Node)), None)
        return None if computed is None else f"it cuts features at the computed size {computed}"
    whole = op.first == op.result and (end in (None, _WHOLE) or op.counts(end) == axis)
    return None if whole and start == 0 else f"it cuts axis '{axis}'"


def pads(op: Op) -> str | None:
    """Take padding of trailing feature axes."""
    axes = op.ins[0][-(len(op.argument(1, "pad")) // 2) :]
    return None if set(axes) <= {FEATURES} else f"it pads axes '{axes}'"
