"""Run the row-wise regions of a graph on live rows only.

    %linear = fc1(%x)                      %rows      = live_rows(%mask)
    %gelu   = gelu(%linear)                %x_live    = unpad_rows(%x, %rows)
    %y      = attention(%gelu)      ->     %linear    = fc1(%x_live)
                                           %gelu      = gelu(%linear)
                                           %gelu_padded = pad_rows(%gelu, %rows)
                                           %y         = attention(%gelu_padded)

One walk keeps two worlds, padded and live, and crosses where an edge does:

1. A row-wise node below a Linear lives in the live world alone. One above every Linear is cheap (embeddings, masks) and stands in
   both, so that rows are gathered from its small inputs.
2. A value is gathered once and scattered once, however many nodes read it from the other world.
3. An attention of live rows over live rows attends on live rows; whether a call's mask allows that is checked in the call.
4. Sizes in the arguments of view, expand and slice count live rows: one sample, as many tokens as rows.
5. A value that a mask was applied to, masked_fill(%scores, %mask, -inf), is computed again on padded rows where those are read:
   its dead rows hold what the mask says, which a softmax or a maximum over tokens relies on. In outputs they are zero.
6. Everything else stays padded, as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from dendrofx.errors import PassError
from dendrofx.graph.shapes import shape, tensors
from dendrofx.passes.base import Change, Pass, PassResult
from dendrofx.passes.worlds import Worlds
from dendrofx.rows.analysis import RowNote
from dendrofx.rows.in_place import written_in_place
from dendrofx.rows.layout import SAMPLES, TOKENS, Letters
from dendrofx.rows.regions import around_products, is_product, masked
from dendrofx.rows.rules import SIZED
from dendrofx.runtime.attention import attend_rows, plan_attention
from dendrofx.runtime.live import count_live, live_rows, pad_rows, unpad_rows
from dendrofx.values.meta import DTYPE, LIVE, MACS, ROWS, SHAPES

aten = torch.ops.aten
# What may be taken for the same where its arguments are: views, and the sizes that they are made with.
_VIEWS = (
    aten.view, aten.reshape, aten.expand, aten.unsqueeze, aten.squeeze, aten.transpose, aten.permute, aten.size, aten.sym_size,
    torch.Tensor.size,
)  # fmt: skip
# Most rows of several samples that share one attention product, see `plan_attention`.
CHUNK_ROWS = 48


@dataclass(frozen=True)
class DropDeadRows(Pass):
    """Claim: every Linear of a row-wise region reads live rows.

    Args:
        mask: the input that says which rows are live, [batch, tokens].
        inverted: rows are live where it is zero.
        side: where a call's padding must be; see `live_rows`.
        attend: let attention read live rows; without it, it always gets the padded layout.
    """

    mask: str
    inverted: bool = False
    side: str = "any"
    attend: bool = True

    def requires(self, gm: fx.GraphModule) -> None:
        """Require row verdicts, and an input of the mask's name and layout."""
        if any(ROWS not in n.meta for n in gm.graph.nodes):
            raise PassError("the graph has no row verdicts: run MarkRows first")
        inputs = {str(n.target): n for n in gm.graph.nodes if n.op == "placeholder"}
        if self.mask not in inputs:
            raise PassError(f"there is no input '{self.mask}': the model's are {', '.join(inputs)}")
        if (layout := inputs[self.mask].meta[ROWS].layout) != SAMPLES + TOKENS:
            raise PassError(f"'{self.mask}' must be shaped [batch, tokens]; its layout is '{layout}'")

    def run(self, gm: fx.GraphModule) -> PassResult:
        """See `Pass.run`."""
        worlds = _Worlds(gm, self)
        worlds.build()
        gm.graph = worlds.graph
        gm.graph.eliminate_dead_code()
        worlds.count_macs()
        live = [n for n in gm.graph.nodes if LIVE in n.meta and n.op == "call_module"]
        return PassResult(gm, tuple(Change(str(n.target), "runs on live rows", (n.name,)) for n in live))

    def ensures(self, gm: fx.GraphModule) -> None:
        """See `Pass.ensures`."""
        for node in gm.graph.nodes:
            crosses = node.target in (unpad_rows, attend_rows)  # the mask that attention reads is padded
            if LIVE in node.meta and not crosses and any(_padded_rows(n) for n in node.all_input_nodes):
                raise PassError(f"%{node.name} runs on live rows and reads a padded value")


def _padded_rows(node: fx.Node) -> bool:
    layout = node.meta[ROWS].layout if ROWS in node.meta else ""
    return LIVE not in node.meta and TOKENS in layout and node.op != "placeholder"


class _Worlds(Worlds):
    """The walk. `padded` and `live` map the old graph's nodes to the new graph's, in either world."""

    def __init__(self, gm: fx.GraphModule, config: DropDeadRows) -> None:
        super().__init__(gm)
        self.config = config
        self.letters = Letters(gm, config.mask).letter
        self.padded: dict[fx.Node, fx.Node] = {}
        self.live: dict[fx.Node, fx.Node] = {}
        self.plans: dict[Hashable, fx.Node] = {}  # by what the mask is, see `value`
        self.written = written_in_place(gm)
        self.above, self.below = around_products(gm)
        self.masked = masked(gm, config.mask, self.below)
        self.scattered: dict[fx.Node, fx.Node] = {}
        self.rows: fx.Node
        self.count: fx.Node

    def build(self) -> None:
        for node in self.gm.graph.nodes:
            if node in self.below or node in self.above:
                self.live[node] = self.copy(node, self.sized if node.target in SIZED else self.in_live, live=True)
            elif self.config.attend and self.attends(node):
                self.live[node] = self.attend(node)
                self.below.add(node)
            else:
                change = self.in_output if node.op == "output" else self.in_padded
                self.padded[node] = self.copy(node, change, live=False)
            if node.op == "placeholder" and str(node.target) == self.config.mask:
                self.rows = self.call(
                    live_rows, (self.padded[node], self.config.inverted, self.config.side), "live_rows"
                )
                self.count = self.call(count_live, (self.rows,), "live_count")

    def copy(self, node: fx.Node, change: Callable[[fx.Node], Any], live: bool) -> fx.Node:
        return self.mark(self.graph.node_copy(node, change), node, live)

    def mark(self, new: fx.Node, old: fx.Node, live: bool) -> fx.Node:
        return self.noted(new, old, {LIVE: True} if live else {})

    def in_padded(self, node: fx.Node) -> fx.Node:
        if node in self.below and node not in self.masked:
            return self.in_output(node)
        if node not in self.padded:  # above every Linear, or what a mask says: it stands in both worlds
            self.padded[node] = self.copy(node, self.in_padded, live=False)
        return self.padded[node]

    def in_output(self, node: fx.Node) -> fx.Node:
        """Return the padded value, dead rows of live values zero."""
        if node not in self.below:
            return self.in_padded(node)
        if node not in self.scattered:
            args = (self.live[node], self.rows, *_axes(node))
            self.scattered[node] = self.mark(self.call(pad_rows, args, f"{node.name}_padded"), node, False)
        return self.scattered[node]

    def in_live(self, node: fx.Node) -> fx.Node:
        if node not in self.live and TOKENS not in node.meta[ROWS].layout:  # weights and scalars are the same in both
            return self.in_padded(node)
        if node not in self.live:
            args = (self.in_padded(node), self.rows, *_axes(node))
            self.live[node] = self.mark(self.call(unpad_rows, args, f"{node.name}_live"), node, True)
        return self.live[node]

    def sized(self, node: fx.Node) -> Any:  # noqa: ANN401
        """Return a tensor on live rows; a size as they count it."""
        if tensors(node):
            return self.in_live(node)
        size = node.meta.get(SHAPES)
        letter = self.letters.get(size) if isinstance(size, str) else None
        return 1 if letter == SAMPLES else self.count if letter == TOKENS else self.in_padded(node)

    def attends(self, node: fx.Node) -> bool:
        """Tell whether a node is an attention of live rows over live rows with a mask, in its plain form."""
        if node.target is not aten.scaled_dot_product_attention or set(node.kwargs) - {"scale"}:
            return False
        given = dict(enumerate(node.args))
        mask, plain = given.get(3), not given.get(4) and not given.get(5)  # neither dropout nor causal
        inputs = [n for n in node.args[:3] if isinstance(n, fx.Node)]
        heads = f"{SAMPLES}.{TOKENS}."
        live = all(n in self.below and n.meta[ROWS].layout == heads for n in inputs)
        masked = isinstance(mask, fx.Node) and len(shape(mask)) == 4
        return plain and masked and live and len({shape(n)[1] for n in inputs}) == 1

    def attend(self, node: fx.Node) -> fx.Node:
        q, k, v, mask = (n for n in node.args[:4] if isinstance(n, fx.Node))
        key = self.value(mask)
        if key not in self.plans:
            padded = self.in_padded(mask)
            self.plans[key] = self.call(plan_attention, (padded, self.rows, CHUNK_ROWS), "attention_plan")
        scale = node.kwargs.get("scale") or float(int(shape(q)[-1]) ** -0.5)
        given = (self.in_live(q), self.in_live(k), self.in_live(v), self.plans[key], scale)
        added = mask.meta.get(DTYPE) != torch.bool
        new = self.mark(self.call(attend_rows, (*given, added), f"{node.name}_live"), node, True)
        new.meta[ROWS] = RowNote(node.meta[ROWS].layout, False, "attends on live rows")
        return new

    def value(self, given: Any) -> Hashable:  # noqa: ANN401  (an argument of a node)
        """Return the same for masks that are the same view of one value, as each layer of a model may make it anew."""
        if isinstance(given, list | tuple):
            return tuple(map(self.value, given))
        if not isinstance(given, fx.Node):
            return given if isinstance(given, Hashable) else repr(given)
        view = given.target in _VIEWS and not given.kwargs
        unwritten = given not in self.written or self.written[given] < given  # it stays as it was when it was made
        return (str(given.target), self.value(given.args)) if view and unwritten else given

    def count_macs(self) -> None:
        """Leave on the nodes what `forward_counted` needs."""
        self.rows.meta[MACS] = 0
        for node in self.graph.nodes:
            if LIVE not in node.meta:
                continue
            if node.target is attend_rows:
                q, v, plan = shape(node.args[0]), shape(node.args[2]), node.args[3]
                plan.meta[MACS] = plan.meta.get(MACS, 0) + int(q[1]) * (int(q[3]) + int(v[3]))
            elif is_product(node):
                self.rows.meta[MACS] += _row_macs(node)


def _row_macs(node: fx.Node) -> int:
    """Return the multiply-adds of a product of rows with fixed weights, per row."""
    x = node.args[0]
    assert isinstance(x, fx.Node)
    features = [int(size) for size in shape(node) if isinstance(size, int)]
    return int(shape(x)[-1]) * math.prod(features)


def _axes(node: fx.Node) -> tuple[int, int]:
    layout = node.meta[ROWS].layout
    return layout.find(SAMPLES), layout.find(TOKENS)
