"""A module without branches that counts what its gates decide, those of the models inside a cascade too."""

from __future__ import annotations

import copy
import operator
from typing import cast

from torch import fx, nn

from dendrofx.branchless import cascade, routes
from dendrofx.branchless.twins import branchless
from dendrofx.lowering.isolate import twin
from dendrofx.rewriting.cascade import cascade_parts
from dendrofx.rewriting.counted import cascade_call, gated_sites, margin_of, ungated_nodes
from dendrofx.values.counts import CASCADE


def counted(gm: fx.GraphModule, graph: fx.Graph) -> tuple[nn.Module, list[str]]:
    """Return what gives `(output, {site: f64[4]})`, see `routes.count_split`, and the sites.

    `model` is a cascade's own gate; `light/NAME` and `full/NAME` are those of its models.

    Args:
        gm: whose sites are counted.
        graph: of the same nodes as its own, such as one with guards; changed.
    """
    named = {node.name: node for node in graph.nodes}
    output = next(node for node in graph.nodes if node.op == "output")
    found: dict[str, fx.Node] = {}
    instead: dict[nn.Module, nn.Module] = {}
    with graph.inserting_before(output):
        for site, split, margin in _splits(gm):
            own = named[split.name]
            found[site] = graph.call_function(routes.count_split, (own, *own.args[:2], margin))
        for site, light_call in ungated_nodes(gm):
            found[site] = graph.call_function(routes.count_ungated, (named[light_call.name].args[0],))
        if (call := cascade_call(gm)) is not None and (parts := cascade_parts(gm)) is not None:
            light, _, leaf = parts
            instead[light], sites = counted(light, copy.deepcopy(light.graph))
            found.update(_inner(graph, named[cast(fx.Node, call.args[1]).name], "light", sites))
            model = cast(fx.GraphModule, leaf.full)
            full, sites = counted(model, copy.deepcopy(model.graph))
            found.update(_inner(graph, named[call.name], "full", sites))
            instead[leaf] = twin(leaf, cascade.CountedFullOnDoubtful)
            instead[leaf].__dict__["_modules"] = {"full": full}
    output.args = ((output.args[0], found),)
    return branchless(gm, graph, instead), list(found)


def _inner(graph: fx.Graph, call: fx.Node, kind: str, sites: list[str]) -> dict[str, fx.Node]:
    """Make a call one that gives its counts beside its outputs; return the nodes of these."""
    counts = graph.call_function(operator.getitem, (call, 1))
    found = {f"{kind}/{site}": graph.call_function(operator.getitem, (counts, site)) for site in sites}
    with graph.inserting_after(call):
        outputs = graph.call_function(operator.getitem, (call, 0))
    call.replace_all_uses_with(outputs, delete_user_cb=lambda user: user not in (outputs, counts))
    return found


def _splits(gm: fx.GraphModule) -> list[tuple[str, fx.Node, float]]:
    """Return the sites of a graph with the node that splits their rows, and the margin of their gate."""
    found = [(site, split, margin) for site, _, split, margin in gated_sites(gm)]
    if (call := cascade_call(gm)) is not None and (parts := cascade_parts(gm)) is not None:
        found.append((CASCADE, cast(fx.Node, call.args[2]), margin_of(parts[1])))
    return found
