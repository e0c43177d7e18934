"""`RoutedModule`: the `fx.GraphModule` that `transform` returns."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import fx, nn

from dendrofx.block import row_cost
from dendrofx.calling import CALL
from dendrofx.cascade.leaves import FullOnDoubtful, count_cascade, doubt_not_finite
from dendrofx.inputs import Inputs
from dendrofx.leaves import FullOnHardRows, LightBeforeGate, LightWithEvidence, LightWithScales
from dendrofx.pickling import PackedModule
from dendrofx.routed import count_rows, no_counts, split_rows
from dendrofx.rows.attention import plan_attention
from dendrofx.rows.counts import count_live_linears, count_live_macs
from dendrofx.rows.live import live_rows

if TYPE_CHECKING:
    from dendrofx.guarantee.front import Setting
    from dendrofx.plan import Plan

PLAN = "dendrofx.plan"
# Where a module keeps what a budget was tested on: settings from safest to fastest, up to the first that failed.
FRONT = "dendrofx.front"
# Where nodes say what they cost; see `passes/drop_dead_rows.py`.
MACS = "dendrofx.macs"
# Among the counts of sites, what dead rows spared; see `rows/counts.py`.
DEAD_ROWS = "dead rows"
NO_PLAN = "this module has no plan: it was rewritten by passes, not by dendrofx.transform"


class RoutedModule(fx.GraphModule):
    """A graph module with a plan and, beside `forward`, a `forward_counted`.

    `forward_counted(...)` takes what `forward` takes and returns `(output, counts)`, where `counts` maps each routed site
    to rows and multiply-adds per branch (see `routed.count_rows`). It is generated from the same graph whenever that is
    recompiled, runs the same nodes, keeps no state, and is exported by `script`.

    Example:
        >>> output, counts = module.forward_counted(x)
        >>> counts["fc1..fc2"]["hard_rows"]
        12
    """

    __jit_unused_properties__ = [*fx.GraphModule.__jit_unused_properties__, "plan", "front"]  # noqa: RUF012  (torch reads it)

    @property
    def plan(self) -> Plan:
        """Every candidate site: routed or refused, and why."""
        if PLAN not in self.meta:
            raise AttributeError(NO_PLAN)
        return cast("Plan", self.meta[PLAN])

    @plan.setter
    def plan(self, plan: Plan) -> None:
        self.meta[PLAN] = plan

    @property
    def front(self) -> list[Setting]:
        """The settings whose budget was tested and shown, safest first; `make()` builds one of them. Empty without a budget."""
        tested: list[Setting] = self.meta.get(FRONT, [])
        return [s for s in tested if s.accepted]

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  (nn.Module's own)
        if name == "plan":  # nn.Module hides what a property raises
            raise AttributeError(NO_PLAN)
        return super().__getattr__(name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  (the model's own)
        """Call it as the model was called; see `CallForm`. Scripting reads `forward` alone."""
        form = self.meta.get(CALL)
        if form is None:
            return super().__call__(*args, **kwargs)
        plain = form.plain(Inputs(args, tuple(kwargs.items())))
        return form.restore(super().__call__(**dict(plain.kwargs)))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (PackedModule.of(self, without=FRONT),)

    def recompile(self) -> Any:  # noqa: ANN401  (torch.fx's own return type, PythonCode)
        """Regenerate `forward` and `forward_counted` from the graph."""
        code = super().recompile()
        counted = type(fx.GraphModule(self, counted_graph(self))).forward
        type(self).forward_counted = torch.jit.export(counted)  # type: ignore[attr-defined]
        return code


def _rebuilt(packed: PackedModule) -> RoutedModule:
    """A pickled module."""
    return cast(RoutedModule, packed.unpack(RoutedModule))


def routed_nodes(gm: fx.GraphModule) -> Iterator[tuple[str, fx.Node]]:
    """`(site name, its full node)` of every routed site, in graph order."""
    for node in gm.graph.nodes:
        if node.op == "call_module" and isinstance(gm.get_submodule(str(node.target)), FullOnHardRows):
            rows = cast(fx.Node, node.args[0])
            yield str(rows.args[2]), node


def graph_names(gm: fx.GraphModule) -> dict[str, str]:
    """Each routed site's name inside the module: `fc1..fc2` -> `fc1_fc2`, of `routed.fc1_fc2.gate`."""
    return {site: str(node.target).split(".")[-2] for site, node in routed_nodes(gm)}


def site_modules(gm: fx.GraphModule, full_node: fx.Node) -> dict[str, nn.Module]:
    """The gate, light and full leaves of a routed site."""
    prefix = str(full_node.target).rpartition(".")[0]
    return {part: gm.get_submodule(f"{prefix}.{part}") for part in ("gate", "light", "full")}


def tolerances(module: nn.Module) -> dict[str, torch.Tensor]:
    """The tolerance buffers of a routed module, eager or scripted, by graph name; write to them with `set_tolerances`.

    A frozen module has none: set them before freezing.
    """
    named = ((name.split("."), buffer) for name, buffer in module.named_buffers())
    return {parts[1]: buffer for parts, buffer in named if parts[0] == "routed" and parts[2:] == ["tolerance"]}


def set_tolerances(module: nn.Module, values: Mapping[str, float]) -> None:
    """Write tolerances by graph name; unnamed sites keep theirs."""
    buffers = tolerances(module)
    with torch.inference_mode():  # where alone a module that was made, copied or loaded in it can be written to
        for name, value in values.items():
            buffers[name].fill_(value)


def counted_graph(gm: fx.GraphModule) -> fx.Graph:
    """The graph of `forward_counted`: `forward`'s nodes, then one `count_rows` per routed site."""
    graph = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    result = graph.graph_copy(gm.graph, copied)
    counts: dict[str, fx.Node] = {}
    for site, full in routed_nodes(gm):
        parts = site_modules(gm, full)
        split = cast(fx.Node, full.args[2])
        if split.target is not split_rows:
            continue
        score, tolerance = split.args[:2]
        costs = [list(row_cost(parts[part])) for part in ("gate", "light", "full")]
        original = cast(FullOnHardRows, parts["full"]).original_macs
        reads_light = isinstance(parts["light"], LightBeforeGate | LightWithEvidence | LightWithScales)
        margin = float(getattr(parts["gate"], "margin", 0.0))
        args = (split, score, tolerance, margin, reads_light, costs, original)
        counts[site] = graph.call_function(count_rows, fx.node.map_arg(args, lambda n: copied[n]))
    counts.update(_live_counts(gm, graph, copied))
    cascade = _cascade_counts(gm, graph, copied)
    graph.output((result, cascade if cascade is not None else counts if counts else graph.call_function(no_counts)))
    return graph


def _cascade_counts(gm: fx.GraphModule, graph: fx.Graph, copied: Mapping[fx.Node, fx.Node]) -> fx.Node | None:
    """In the copied graph of a cascade, its two models called for their counts; the node that joins them, None of other graphs."""
    found = [
        n
        for n in gm.graph.nodes
        if n.op == "call_module" and isinstance(gm.get_submodule(str(n.target)), FullOnDoubtful)
    ]
    if not found:
        return None
    full = found[0]
    light, split = cast(fx.Node, full.args[1]), cast(fx.Node, full.args[2])
    gate = cast(fx.Node, split.args[0])
    gate = cast(fx.Node, gate.args[0]) if gate.target is doubt_not_finite else gate
    margin = float(getattr(gm.get_submodule(str(gate.target)), "margin", 0.0))
    inner = [_called_counted(graph, copied[n]) for n in (light, full)]
    score, tolerance = (copied[cast(fx.Node, a)] for a in split.args[:2])
    return graph.call_function(count_cascade, (copied[split], score, tolerance, margin, *inner))


def _called_counted(graph: fx.Graph, call: fx.Node) -> fx.Node:
    """A call of a module made one of its `forward_counted`; the node of its counts."""
    with graph.inserting_before(call):
        module = graph.create_node("get_attr", str(call.target))
        pair = graph.call_method("forward_counted", (module, *call.args))
        output, counts = (graph.call_function(operator.getitem, (pair, i)) for i in (0, 1))
    call.replace_all_uses_with(output)
    graph.erase_node(call)
    return counts


def _live_counts(gm: fx.GraphModule, graph: fx.Graph, copied: Mapping[fx.Node, fx.Node]) -> dict[str, fx.Node]:
    """The node that counts what dead rows spared, where rows are dropped."""
    rows = next((n for n in gm.graph.nodes if n.target is live_rows), None)
    if rows is None:
        return {}
    linear_macs = rows.meta.get(MACS, 0)
    plans = [n for n in gm.graph.nodes if n.target is plan_attention and MACS in n.meta]
    if not plans:
        return {DEAD_ROWS: graph.call_function(count_live_linears, (copied[rows], linear_macs))}
    args = (copied[rows], linear_macs, [copied[p] for p in plans], [p.meta[MACS] for p in plans])
    return {DEAD_ROWS: graph.call_function(count_live_macs, args)}
