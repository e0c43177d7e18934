"""Row analysis: which nodes of a graph treat every row (sample, token) on its own.

Every value gets a layout (`layout.py`), every call is judged by the rule of its op (`rules.py`); an unknown op, or a layout that
cannot be told, is never row-wise. `str(analysis)` prints the verdicts, `check` tries them: other rows are replaced and samples
permuted, and a row's output must not move.

    input_ids    bt    input
    embedding    bt.   row-wise
    linear       bt.   row-wise
    sdpa         b.t.  mixes rows: no rule for scaled_dot_product_attention
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor, fx

from dendrofx.errors import PassError
from dendrofx.inputs import Inputs
from dendrofx.record import positional
from dendrofx.rows.layout import OPAQUE, SAMPLES, SHAPES, TOKENS, Letters, shape, tensors
from dendrofx.rows.rules import SIZED, Op, has_rows, is_getitem, rule_of

# Where `MarkRows` leaves a node's verdict.
ROWS = "dendrofx.rows"
# A row's sums may take another order when its neighbours change: relative to the largest value of the output.
ROUNDING = 1e-5


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

    Attributes:
        letters: which symbols count samples and tokens.
        notes: a verdict per node.

    Example:
        >>> print(RowAnalysis(capture(model, example, shapes=True)))
    """

    def __init__(self, gm: fx.GraphModule) -> None:
        self.gm = gm
        self.letters = Letters(gm)
        self.notes: dict[fx.Node, RowNote] = {}
        for node in gm.graph.nodes:
            self.notes[node] = self.judge(node)

    def layout(self, node: fx.Node) -> str:
        """A node's layout."""
        return self.notes[node].layout

    def row_wise(self, node: fx.Node) -> bool:
        """A node's verdict."""
        return self.notes[node].row_wise

    def judge(self, node: fx.Node) -> RowNote:
        """One node; its inputs have been judged."""
        layout = self.letters.of(node)
        if not node.op.startswith("call_") or not has_rows(layout):
            reads_rows = node.op.startswith("call_") and any(has_rows(self.layout(n)) for n in node.all_input_nodes)
            return RowNote(layout, False, "its output has no rows" if reads_rows and layout else "")
        reason = self.refusal(node, layout)
        return RowNote(layout, reason is None, reason or "")

    def refusal(self, node: fx.Node, out: str) -> str | None:
        """Why a call is not row-wise, or None."""
        if is_getitem(node):
            source = node.args[0]
            return (
                None if isinstance(source, fx.Node) and self.row_wise(source) else "what it picks from is not row-wise"
            )
        given = [n for n in node.all_input_nodes if tensors(n)]
        ins = tuple(self.layout(n) for n in given)
        if not given:
            return "it makes rows from nothing"
        if OPAQUE in "".join(ins) or any(i.count(SAMPLES) > 1 or i.count(TOKENS) > 1 for i in ins):
            return f"the axes of its inputs cannot be told apart: {', '.join(ins)}"
        if any(SAMPLES in i and TOKENS not in i for i in ins):
            return "an operand has one value per sample, not per row"
        rule = rule_of(node)
        if rule is None:
            return f"no rule for {getattr(node.target, '__name__', node.target)}"
        if node.target in SIZED and (odd := self.odd_size(node)) is not None:
            return f"its size {odd} is neither samples nor tokens"
        module = self.gm.get_submodule(str(node.target)) if node.op == "call_module" else None
        return rule(Op(node, out, ins, shape(given[0]), shape(node), module))

    def odd_size(self, node: fx.Node) -> str | None:
        """A computed size among the arguments that is no plain count of samples or tokens."""
        for size in (n.meta.get(SHAPES) for n in node.all_input_nodes if not tensors(n)):
            if isinstance(size, str) and self.letters.letter.get(size, OPAQUE) == OPAQUE:
                return size
        return None

    def __str__(self) -> str:
        rows = [
            [n.name, note.layout, str(note) or n.op.replace("placeholder", "input")] for n, note in self.notes.items()
        ]
        return tabulate([r for r in rows if r[1]], headers=["value", "layout", "verdict"], tablefmt="plain")

    def check(self, inputs: Inputs, seed: int = 0) -> None:
        """Try every row-wise verdict on `inputs`.

        Raises:
            PassError: a row's output moved when others changed, or did not follow its sample; names the node.
        """
        with torch.no_grad():
            _Trial(self, seed).run(*positional(self.gm, inputs))


class _Trial(fx.Interpreter):
    """Runs a graph; every row-wise node once more with half of the rows replaced, and with its samples permuted."""

    def __init__(self, analysis: RowAnalysis, seed: int) -> None:
        super().__init__(analysis.gm)
        self.analysis = analysis
        self.generator = torch.Generator().manual_seed(seed)

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401
        value = super().run_node(n)
        rowed = [i for i in n.all_input_nodes if has_rows(self.analysis.layout(i))]
        if self.analysis.row_wise(n) and rowed and not is_getitem(n):
            x, layout = self.env[rowed[0]], self.analysis.layout(rowed[0])
            samples, tokens = x.size(layout.index(SAMPLES)), x.size(layout.index(TOKENS))
            source = torch.randint(samples * tokens, (samples * tokens,), generator=self.generator)
            kept = torch.rand(samples * tokens, generator=self.generator) < 0.5
            source = torch.where(kept, torch.arange(samples * tokens), source)
            self.compare(n, value, source, kept, "reads other rows")
            order = torch.randperm(samples, generator=self.generator)
            source = (order[:, None] * tokens + torch.arange(tokens)).reshape(-1)
            self.compare(n, value, source, torch.ones_like(kept), "depends on a sample's place in the batch", source)
        return value

    def compare(
        self,
        n: fx.Node,
        value: Any,
        source: Tensor,
        kept: Tensor,
        claim: str,
        expected: Tensor | None = None,
    ) -> None:
        """Run `n` with rows taken from `source`; its rows at `kept` must be those of `value` (at `expected`)."""
        env = dict(self.env)
        for i in n.all_input_nodes:
            layout = self.analysis.layout(i)
            if has_rows(layout) and isinstance(self.env[i], Tensor):
                self.env[i] = _from_rows(_as_rows(self.env[i], layout)[source], self.env[i], layout)
        moved = super().run_node(n)
        self.env = env
        layout = self.analysis.layout(n)
        pairs = zip(_several(value), _several(moved), strict=True)
        for a, b in ((_as_rows(x, layout), _as_rows(y, layout)) for x, y in pairs):
            wanted = a if expected is None else a[expected]
            far = (wanted[kept].double() - b[kept].double()).nan_to_num(0, 0, 0).abs()
            scale = a.double().nan_to_num(0, 0, 0).abs()
            if far.numel() and float(far.max()) > ROUNDING * max(float(scale.max()), 1e-30):
                raise PassError(f"%{n.name} was taken for row-wise, but {claim}: {self.analysis.notes[n].layout}")


def _several(value: Any) -> list[Tensor]:  # noqa: ANN401
    return [value] if isinstance(value, Tensor) else list(value)


def _axes(layout: str) -> list[int]:
    return [layout.index(SAMPLES), layout.index(TOKENS)]


def _as_rows(x: Tensor, layout: str) -> Tensor:
    """[rows, features ...]."""
    return x.movedim(_axes(layout), [0, 1]).flatten(0, 1)


def _from_rows(rows: Tensor, like: Tensor, layout: str) -> Tensor:
    sizes = [like.size(a) for a in _axes(layout)]
    return rows.unflatten(0, sizes).movedim([0, 1], _axes(layout)).contiguous()


__all__ = ["ROWS", "RowAnalysis", "RowNote"]
