"""Batch independence: does every output sample read that sample of the inputs, and nothing of any other?

The same analysis as for rows (`analysis.py`) with samples alone for rows: token axes count as features, so attention, pooling over
tokens and reshapes of a sample are fine, and what crosses the batch axis is not. A cascade gathers the samples in doubt, runs the
original on them alone and scatters them back; it may do so only where this is proved.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import fx

from dendrofx.errors import InputError
from dendrofx.graph.shapes import tensors
from dendrofx.rows import op_rules
from dendrofx.rows.analysis import RowAnalysis, RowNote
from dendrofx.rows.difference import ROUNDING, difference
from dendrofx.rows.layout import FEATURES, OPAQUE, SAMPLES, Letters, fixed
from dendrofx.rows.op import Op, Rule
from dendrofx.rows.rules import RULES
from dendrofx.runtime.bags import bag_rows
from dendrofx.values.inputs import Inputs
from dendrofx.values.outputs import flatten

aten = torch.ops.aten


class SampleLetters(Letters):
    """`b` for samples, `?` for sizes that mix them with others, `.` for the rest."""

    def __init__(self, gm: fx.GraphModule, mask: str | None = None) -> None:
        super().__init__(gm, mask)
        self.letter = {s: SAMPLES for s, letter in self.letter.items() if letter in (SAMPLES, OPAQUE)}

    def axis(self, size: int | str) -> str:
        """Return the letter of a size, which may be an expression of symbols."""
        if size in self.letter:
            return SAMPLES
        return OPAQUE if set(re.findall(r"\w+", str(size))) & self.letter.keys() else FEATURES


class SampleAnalysis(RowAnalysis):
    """See the module's docstring.

    Args:
        gm: a module captured with symbolic shapes.

    Example:
        >>> SampleAnalysis(capture(model, example, shapes=True)).refusals
        []
    """

    def __init__(self, gm: fx.GraphModule, mask: str | None = None) -> None:
        self.places: set[fx.Node] = set()
        super().__init__(gm, mask)

    def letters_of(self, gm: fx.GraphModule, mask: str | None) -> Letters:
        """Return the letters of samples alone."""
        return SampleLetters(gm, mask)

    def has_rows(self, layout: str) -> bool:
        """Tell whether a layout has one sample axis, and no axis that mixes samples."""
        return layout.count(SAMPLES) == 1 and OPAQUE not in layout

    def judge(self, node: fx.Node) -> RowNote:
        """Judge a node whose inputs have been judged."""
        layout = self.letters.of(node)
        if not node.op.startswith("call_"):
            return RowNote(layout, False)
        reads = any(SAMPLES in self.layout(n) or OPAQUE in self.layout(n) for n in node.all_input_nodes if tensors(n))
        if not reads and SAMPLES not in layout and OPAQUE not in layout:
            return RowNote(layout, False)
        if not tensors(node):
            sized = node.target in (aten.sym_size, aten.size) or (node.op == "call_method" and node.target == "size")
            return RowNote(layout, False, "" if sized else "a number is computed from all samples")
        if not self.has_rows(layout):
            return RowNote(layout, False, "its output has no samples")
        reason = None if self.is_place(node) else self.refusal(node, layout) or self.misplaced(node)
        return RowNote(layout, reason is None, reason or "")

    def is_place(self, node: fx.Node) -> bool:
        """Tell whether a value is a sample's own place in the batch: 0, 1, 2, ...; Hugging Face's masks are indexed by it."""
        counted = node.target is aten.arange and len(node.args) == 1 and self.letters.of(node) == SAMPLES
        moved = RULES.get(node.target) is op_rules.moves_axes and node.all_input_nodes[0] in self.places
        if counted or moved:
            self.places.add(node)
        return counted or moved

    def misplaced(self, node: fx.Node) -> str | None:
        """Refuse what a place is used for, unless it is moved, or picks the own sample of a tensor."""
        if node in self.places or node.target is aten.index or not any(n in self.places for n in node.all_input_nodes):
            return None
        return "it computes with a sample's place in the batch"

    def rule(self, node: fx.Node) -> Rule | None:
        """Return the rule of a call."""
        if node.target is aten.index and node.op == "call_function":
            return self.indexes
        return SAMPLE_RULES.get(node.target) or super().rule(node) if node.op == "call_function" else super().rule(node)

    def indexes(self, op: Op) -> str | None:
        """Take `x[place, ...]` and `x[:, i, j]`: every sample picks from itself."""
        picked, index = op.node.args[0], op.node.args[1]
        assert isinstance(picked, fx.Node)
        assert isinstance(index, Sequence)
        own = index[0] in self.places or (index[0] is None and op.out.startswith(SAMPLES))
        others = [i for i in index[1:] if isinstance(i, fx.Node)]
        alike = self.layout(picked).startswith(SAMPLES) and fixed(self.layout(i) for i in others)
        return None if own and alike else "it picks samples by computed places"

    def lone(self, ins: Sequence[str]) -> bool:
        """Let all pass: values per sample are what this is about."""
        return False

    @property
    def refusals(self) -> list[str]:
        """Return why the graph is not independent of the batch, a line per node that is to blame; empty where it is."""
        found = [f"%{n.name} ({self.layout(n)}): {note.reason}" for n, note in self.notes.items() if note.reason]
        found += [
            f"input '{n}' ({layout}) has its samples not on axis 0"
            for n, layout in self.inputs().items()
            if SAMPLES in layout[1:]
        ]
        output = next(n for n in self.gm.graph.nodes if n.op == "output")
        return found + [
            f"output %{n.name} ({self.layout(n)}) does not have its samples on axis 0"
            for n in output.all_input_nodes
            if not self.layout(n).startswith(SAMPLES) or not self.has_rows(self.layout(n))
        ]

    @property
    def batched(self) -> tuple[str, ...]:
        """Return the inputs that carry samples."""
        return tuple(name for name, layout in self.inputs().items() if layout.startswith(SAMPLES))

    @property
    def shared(self) -> frozenset[str]:
        """Return the other inputs, which all samples share."""
        return frozenset(self.inputs()) - frozenset(self.batched)


@torch.no_grad()
def check_samples(gm: fx.GraphModule, inputs: Inputs, seed: int = 0) -> None:
    """Try whether it holds: a permuted part of the batch alone must give what these samples gave among all.

    Args:
        gm: the module.
        inputs: a batch, with the inputs marked that all samples share.
        seed: of the permutation.

    Raises:
        InputError: it does not; names the output.
    """
    samples = inputs.samples
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(seed))[: max(samples // 2, 1)]
    whole, form = flatten(inputs.call(gm))
    part, _ = flatten(inputs.take(order).call(gm))
    for name, a, b in zip(form.names, whole, part, strict=True):
        expected = a.index_select(0, order) if a.dim() and len(a) == samples else a
        if expected.shape != b.shape or not difference(expected, b, a) <= ROUNDING:
            raise InputError(f"scope='model': output '{name}' of a sample depends on the other samples of its batch")


def _reshapes(op: Op) -> str | None:
    """Take whatever happens within a sample, as long as samples stay on axis 0."""
    if op.ins[0].startswith(SAMPLES) and op.out.startswith(SAMPLES):
        return None
    return f"reshaping {op.ins[0]} to {op.out} may move values across samples"


def _product(op: Op) -> str | None:
    """Take matrix products of each sample on its own: samples are in no axis of the matrices, but in rows of the first."""
    first, *others = op.ins
    if fixed(others):
        return f"it sums over axis '{SAMPLES}'" if first.endswith(SAMPLES) else None
    if any(SAMPLES in layout[-2:] for layout in op.ins):
        return "samples are multiplied with each other"
    return op_rules.elementwise(replace(op, ins=tuple(i[:-2] + FEATURES * 2 for i in op.ins)))


def _leading(op: Op) -> str | None:
    """Take convolutions, pools and norms of [samples, channels, ...] with fixed weights."""
    return None if op.ins[0].startswith(SAMPLES) and fixed(op.ins[1:]) else f"samples are not on axis 0 of {op.ins[0]}"


def _batch_norm(op: Op) -> str | None:
    return "it normalises over the batch" if op.argument(5, "training") else _leading(op)


def _bags(op: Op) -> str | None:
    """Take bags of each sample's own ids, from a fixed table."""
    own = all(layout.startswith(SAMPLES) for layout in op.ins[1:])
    return None if fixed(op.ins[:1]) and own else "its table has samples"


def _slices(op: Op) -> str | None:
    axis = op.ins[0][op.argument(1, "dim", 0)]
    return op_rules.slices(op) if axis == SAMPLES else None


SAMPLE_RULES: dict[Any, Rule] = {
    **dict.fromkeys([aten.reshape, aten.view, aten.flatten, aten.unflatten], _reshapes),
    **dict.fromkeys([aten.matmul, aten.bmm, aten.scaled_dot_product_attention], _product),
    **dict.fromkeys([aten.conv1d, aten.conv2d, aten.max_pool2d, aten.avg_pool2d, aten.adaptive_avg_pool2d], _leading),
    **dict.fromkeys([aten.group_norm, aten.adaptive_avg_pool1d, aten.avg_pool1d], _leading),
    aten.batch_norm: _batch_norm,
    aten.slice: _slices,
    bag_rows: _bags,
}

__all__ = ["SampleAnalysis", "check_samples"]
