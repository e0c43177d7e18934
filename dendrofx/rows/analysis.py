"""Row analysis: which nodes of a graph treat every row (sample, token) on its own.

Every value gets a layout (`layout.py`), every call is judged by the rule of its op (`rules.py`); an unknown op, or a layout that
cannot be told, is never row-wise. `str(analysis)` prints the verdicts, `check` tries them (`numerical_check.py`).

    input_ids    bt    input
    embedding    bt.   row-wise
    linear       bt.   row-wise
    sdpa         b.t.  mixes rows: no rule for scaled_dot_product_attention
    pooled       b.    no rows
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tabulate import tabulate
from torch import fx

from dendrofx.graph.record import positional
from dendrofx.graph.shapes import shape, tensors
from dendrofx.rows.in_place import written_in_place
from dendrofx.rows.layout import OPAQUE, SAMPLES, TOKENS, Letters, has_rows
from dendrofx.rows.numerical_check import NumericalCheck
from dendrofx.rows.op import Op, Rule
from dendrofx.rows.rules import is_getitem, rule_of
from dendrofx.values.inputs import Inputs
from dendrofx.values.meta import ROWS

_KINDS = {"placeholder": "input", "get_attr": "constant"}


@dataclass(frozen=True)
class RowNote:
    """A node's verdict.

    Attributes:
        layout: of its value.
        row_wise: whether it treats rows on their own.
        reason: why not; empty for values without rows.
    """

    layout: str
    row_wise: bool
    reason: str = ""

    def __str__(self) -> str:
        return "row-wise" if self.row_wise else f"mixes rows: {self.reason}" if self.reason else ""


class RowAnalysis:
    """See the module's docstring.

    Args:
        gm: a module captured with symbolic shapes, `capture(model, example, shapes=True)`.
        mask: the input whose axes are samples and tokens; without it the first that has both.

    Attributes:
        letters: which symbols count samples and tokens.
        notes: a verdict per node.

    Example:
        >>> print(RowAnalysis(capture(model, example, shapes=True)))
    """

    def __init__(self, gm: fx.GraphModule, mask: str | None = None) -> None:
        self.gm = gm
        self.letters = self.letters_of(gm, mask)
        self.written = written_in_place(gm)
        self.notes: dict[fx.Node, RowNote] = {}
        for node in gm.graph.nodes:
            self.notes[node] = self.judge(node)

    def letters_of(self, gm: fx.GraphModule, mask: str | None) -> Letters:
        """Return which symbols are axes of rows."""
        return Letters(gm, mask)

    def has_rows(self, layout: str) -> bool:
        """Tell whether values of a layout have rows."""
        return has_rows(layout)

    def rule(self, node: fx.Node) -> Rule | None:
        """Return the rule of a call, None for an op without one."""
        return rule_of(node)

    def lone(self, ins: Sequence[str]) -> bool:
        """Tell whether an operand has one value per sample, which is none per row."""
        return any(SAMPLES in i and TOKENS not in i for i in ins)

    def layout(self, node: fx.Node) -> str:
        """Return a node's layout."""
        return self.notes[node].layout

    def inputs(self) -> dict[str, str]:
        """Return the layouts of the inputs by name."""
        return {str(n.target): self.layout(n) for n in self.gm.graph.nodes if n.op == "placeholder"}

    def row_wise(self, node: fx.Node) -> bool:
        """Return a node's verdict."""
        return self.notes[node].row_wise

    def judge(self, node: fx.Node) -> RowNote:
        """Judge a node whose inputs have been judged."""
        layout = self.letters.of(node)
        if not node.op.startswith("call_"):
            return RowNote(layout, False)
        if not self.has_rows(layout):
            reads_rows = tensors(node) and any(self.has_rows(self.layout(n)) for n in node.all_input_nodes)
            return RowNote(layout, False, "its output has no rows" if reads_rows else "")
        reason = self.refusal(node, layout)
        return RowNote(layout, reason is None, reason or "")

    def refusal(self, node: fx.Node, out: str) -> str | None:
        """Return why a call is not row-wise, or None."""
        if (reason := self.in_place(node)) is not None:
            return reason
        if is_getitem(node):
            return None if self.row_wise(node.all_input_nodes[0]) else "what it picks from is not row-wise"
        rule = self.rule(node)
        if rule is None:
            return f"no rule for {getattr(node.target, '__name__', node.target)}"
        given = _operands(node)
        ins = tuple(self.layout(n) for n in given)
        if OPAQUE in "".join(ins) or any(i.count(SAMPLES) > 1 or i.count(TOKENS) > 1 for i in ins):
            return f"the axes of its inputs cannot be told apart: {', '.join(ins)}"
        if self.lone(ins):
            return "an operand has one value per sample, not per row"
        module = self.gm.get_submodule(str(node.target)) if node.op == "call_module" else None
        first = shape(given[0]) if given else ()
        return rule(Op(node, out, ins, first, shape(node), self.letters.axis, module))

    def in_place(self, node: fx.Node) -> str | None:
        """Tell whether a node writes in place, or its value or what it reads is written in place later."""
        if (writer := self.written.get(node)) is not None and not writer < node:
            return "it writes in place" if writer is node else f"%{writer.name} writes its value in place"
        read = next((n for n in node.all_input_nodes if n in self.written and self.written[n] > node), None)
        return None if read is None else f"%{self.written[read].name} writes %{read.name} in place later"

    def __str__(self) -> str:
        rows = [[n.name, note.layout, str(note) or _KINDS.get(n.op, "no rows")] for n, note in self.notes.items()]
        return tabulate([r for r in rows if r[1]], headers=["value", "layout", "verdict"], tablefmt="plain")

    def check(self, inputs: Inputs, seed: int = 0) -> None:
        """Try every row-wise verdict on `inputs`.

        Raises:
            PassError: a row's output moved when others changed, or did not follow its sample; names the node.
        """
        layouts = {n: note.layout for n, note in self.notes.items()}
        with torch.no_grad():
            NumericalCheck(self.gm, layouts, self.row_wise, seed).run(*positional(self.gm, inputs))


def _operands(node: fx.Node) -> list[fx.Node]:
    """Return the tensors among a node's arguments, in order, as often as they are given."""
    found: list[fx.Node] = []

    def keep(n: fx.Node) -> fx.Node:
        found.append(n)
        return n

    fx.node.map_arg((node.args, node.kwargs), keep)
    return [n for n in found if tensors(n)]


__all__ = ["ROWS", "RowAnalysis", "RowNote"]
