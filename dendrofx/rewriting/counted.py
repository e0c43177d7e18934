"""Find the routed sites of a graph, and make the graph of `forward_counted`, which counts what they execute."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from torch import fx, nn

from dendrofx.graph.block import row_cost
from dendrofx.graph.shapes import shape, tensors
from dendrofx.runtime.attention import plan_attention
from dendrofx.runtime.cascade import FullOnDoubtful, count_cascade, doubt_not_finite
from dendrofx.runtime.exits import ExitHead, count_exit
from dendrofx.runtime.leaves import FullOnHardRows, LightBeforeGate, LightOnly, LightWithEvidence, LightWithScales
from dendrofx.runtime.live import live_rows
from dendrofx.runtime.live_counts import count_live_linears, count_live_macs, count_repeats
from dendrofx.runtime.pairs import count_pairs, joined_pairs
from dendrofx.runtime.repeats import row_runs, sample_runs
from dendrofx.runtime.route_counts import count_light, count_rows, no_counts, of_live_light, of_live_rows
from dendrofx.runtime.routing import split_rows
from dendrofx.runtime.split_linear import count_split, split_linear
from dendrofx.values.counts import BEHIND_EXIT, DEAD_ROWS, EXIT, REPEATED_ROWS
from dendrofx.values.meta import ENTERED, LIVE, MACS, RUNS, SPLIT


def routed_nodes(gm: fx.GraphModule) -> Iterator[tuple[str, fx.Node]]:
    """Return `(site name, its full node)` of every routed site, in graph order."""
    for node in gm.graph.nodes:
        if node.op == "call_module" and isinstance(gm.get_submodule(str(node.target)), FullOnHardRows):
            rows = cast(fx.Node, node.args[0])
            yield str(rows.args[2]), node


def gated_sites(gm: fx.GraphModule) -> Iterator[tuple[str, fx.Node, fx.Node, float]]:
    """Return `(site name, its full node, the node that splits its rows, its gate's margin)` of every site whose rows are split."""
    for site, full in routed_nodes(gm):
        split = cast(fx.Node, full.args[2])
        if split.target is split_rows:
            yield site, full, split, margin_of(site_modules(gm, full)["gate"])


def cascade_call(gm: fx.GraphModule) -> fx.Node | None:
    """Return the node that runs the original on samples in doubt; None of a graph that is no cascade."""
    calls = (n for n in gm.graph.nodes if n.op == "call_module")
    return next((n for n in calls if isinstance(gm.get_submodule(str(n.target)), FullOnDoubtful)), None)


def margin_of(gate: nn.Module) -> float:
    """Return a gate's relative rounding margin: scores nearer to the tolerance may fall on its other side in another batch."""
    return float(getattr(gate, "margin", 0.0))


def ungated_nodes(gm: fx.GraphModule) -> Iterator[tuple[str, fx.Node]]:
    """Return `(site name, its light node)` of every site without gate and full branch, in graph order."""
    for node in gm.graph.nodes:
        if node.op == "call_module" and isinstance(leaf := gm.get_submodule(str(node.target)), LightOnly):
            yield leaf.site, node


def graph_names(gm: fx.GraphModule) -> dict[str, str]:
    """Return each routed site's name inside the module: `fc1..fc2` -> `fc1_fc2`, of `routed.fc1_fc2.gate`."""
    return {site: str(node.target).split(".")[-2] for site, node in (*routed_nodes(gm), *ungated_nodes(gm))}


def site_modules(gm: fx.GraphModule, full_node: fx.Node) -> dict[str, nn.Module]:
    """Return the gate, light and full leaves of a routed site."""
    prefix = str(full_node.target).rpartition(".")[0]
    return {part: gm.get_submodule(f"{prefix}.{part}") for part in ("gate", "light", "full")}


def on_live_rows(leaf: fx.Node) -> bool:
    """Tell whether a routed site, by its full node, or its light node where it has no other, runs on live rows."""
    return any(LIVE in user.meta for user in leaf.users)


def counted_graph(gm: fx.GraphModule) -> fx.Graph:
    """Return the graph of `forward_counted`: `forward`'s nodes, then what counts each routed site."""
    graph = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    result = graph.graph_copy(gm.graph, copied)
    counts: dict[str, fx.Node] = {}
    live = next((n for n in gm.graph.nodes if n.target is live_rows), None)
    for site, full, split, margin in gated_sites(gm):
        parts = site_modules(gm, full)
        score, tolerance = split.args[:2]
        costs = [list(row_cost(parts[part])) for part in ("gate", "light", "full")]
        original = cast(FullOnHardRows, parts["full"]).original_macs
        reads_light = isinstance(parts["light"], LightBeforeGate | LightWithEvidence | LightWithScales)
        args = fx.node.map_arg((split, score, tolerance, margin, reads_light), lambda n: copied[n])
        counts[site] = graph.call_function(count_rows, (*args, costs, original))
        if live is not None and on_live_rows(full):
            counts[site] = graph.call_function(of_live_rows, (counts[site], copied[live], *args))
    for site, light in ungated_nodes(gm):
        leaf = cast(LightOnly, gm.get_submodule(str(light.target)))
        rows, cost = copied[cast(fx.Node, light.args[0])], list(row_cost(leaf.light))
        counts[site] = graph.call_function(count_light, (rows, cost, leaf.original_macs))
        if live is not None and on_live_rows(light):
            counts[site] = graph.call_function(of_live_light, (counts[site], copied[live]))
    counts.update(_live_counts(gm, graph, copied))
    counts.update(_repeat_counts(gm, graph, copied))
    counts.update(_exit_counts(gm, graph, copied))
    cascade = _cascade_counts(gm, graph, copied)
    graph.output((result, cascade if cascade is not None else counts if counts else graph.call_function(no_counts)))
    return graph


def _cascade_counts(gm: fx.GraphModule, graph: fx.Graph, copied: Mapping[fx.Node, fx.Node]) -> fx.Node | None:
    """Call both models of a cascade for their counts, in the copied graph; return the node that joins them, if there is one."""
    if (full := cascade_call(gm)) is None:
        return None
    light, split = cast(fx.Node, full.args[1]), cast(fx.Node, full.args[2])
    gate = cast(fx.Node, split.args[0])
    gate = cast(fx.Node, gate.args[0]) if gate.target is doubt_not_finite else gate
    margin = margin_of(gm.get_submodule(str(gate.target)))
    inner = [_called_counted(graph, copied[n]) for n in (light, full)]
    score, tolerance = (copied[cast(fx.Node, a)] for a in split.args[:2])
    return graph.call_function(count_cascade, (copied[split], score, tolerance, margin, *inner))


def _exit_counts(gm: fx.GraphModule, graph: fx.Graph, copied: Mapping[fx.Node, fx.Node]) -> dict[str, fx.Node]:
    """Return the nodes that count what is left out up to an exit, and what is not computed again behind one."""
    found = {}
    for node in gm.graph.nodes:
        if node.op == "call_module" and isinstance(head := gm.get_submodule(str(node.target)), ExitHead):
            args = (copied[cast(fx.Node, node.args[0])], head.macs, head.work[0] - head.work[1])
            found[EXIT] = graph.call_function(count_exit, args)
        if ENTERED in node.meta:
            found[BEHIND_EXIT] = graph.call_function(count_exit, (copied[node], 0, node.meta[ENTERED]))
    return found


def _called_counted(graph: fx.Graph, call: fx.Node) -> fx.Node:
    """Make a call of a module one of its `forward_counted`; return the node of its counts."""
    with graph.inserting_before(call):
        module = graph.create_node("get_attr", str(call.target))
        pair = graph.call_method("forward_counted", (module, *call.args))
        output, counts = (graph.call_function(operator.getitem, (pair, i)) for i in (0, 1))
    call.replace_all_uses_with(output)
    graph.erase_node(call)
    return counts


def _live_counts(gm: fx.GraphModule, graph: fx.Graph, copied: Mapping[fx.Node, fx.Node]) -> dict[str, fx.Node]:
    """Return the node that counts what dead rows spared, where rows are dropped."""
    rows = next((n for n in gm.graph.nodes if n.target is live_rows), None)
    if rows is None:
        return {}
    linear_macs = rows.meta.get(MACS, 0)
    plans = [n for n in gm.graph.nodes if n.target is plan_attention and MACS in n.meta]
    if not plans:
        return {DEAD_ROWS: graph.call_function(count_live_linears, (copied[rows], linear_macs))}
    args = (copied[rows], linear_macs, [copied[p] for p in plans], [p.meta[MACS] for p in plans])
    return {DEAD_ROWS: graph.call_function(count_live_macs, args)}


def _repeat_counts(gm: fx.GraphModule, graph: fx.Graph, copied: Mapping[fx.Node, fx.Node]) -> dict[str, fx.Node]:
    """Return the nodes that count what repeated rows spared, by what the rows depend on."""
    found = {}
    for runs in [n for n in gm.graph.nodes if n.target in (row_runs, sample_runs)]:
        macs: Any = 0
        for number, symbols in runs.meta.get(MACS, []):
            macs = graph.call_function(operator.add, (macs, _times(number, symbols, gm, graph, copied)))
        spared: list[Any] = [0, 0]
        for node in [n for n in gm.graph.nodes if n.target is split_linear]:
            for group, (inputs, _) in enumerate(node.meta[SPLIT].groups):
                if inputs == runs.meta[RUNS]:
                    args = (*node.args[:3], node, node.args[-1], runs, group)
                    spared = _added(spared, count_split, args, graph, copied)
        for node in [n for n in gm.graph.nodes if n.target is joined_pairs]:
            if node.meta[SPLIT].groups[0][0] == runs.meta[RUNS]:  # all are counted once, with what repeats most
                each, groups, whole = node.meta[MACS]
                args = (each, groups, node.args[2], whole, node.args[-1], runs)
                spared = _added(spared, count_pairs, args, graph, copied)
        name = f"{REPEATED_ROWS} of {runs.meta[RUNS]}"
        found[name] = graph.call_function(count_repeats, (copied[runs], macs, *spared))
    return found


def _added(
    total: list[Any],
    count: Callable[..., list[int]],
    args: tuple[Any, ...],
    graph: fx.Graph,
    copied: Mapping[fx.Node, fx.Node],
) -> list[Any]:
    """Return the nodes of executed and original multiply-adds, and of those that a function counts besides."""
    pair = graph.call_function(count, fx.node.map_arg(args, lambda n: copied[n]))
    picked = [graph.call_function(operator.getitem, (pair, i)) for i in (0, 1)]
    return [graph.call_function(operator.add, both) for both in zip(total, picked, strict=True)]


def _times(
    number: int, symbols: tuple[str, ...], gm: fx.GraphModule, graph: fx.Graph, copied: Mapping[fx.Node, fx.Node]
) -> Any:  # noqa: ANN401  (a node or a number)
    """Return a number, or the node of it times sizes of the input; 0 where no input has such a size."""
    product: Any = number
    for symbol in symbols:
        source = next((n for n in gm.graph.nodes if n.op == "placeholder" and tensors(n) and symbol in shape(n)), None)
        if source is None:
            return 0
        size = graph.call_method("size", (copied[source], shape(source).index(symbol)))
        product = graph.call_function(operator.mul, (product, size))
    return product
