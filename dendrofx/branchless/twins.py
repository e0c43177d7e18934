"""`branchless`: a module with every branch of `runtime/` replaced by its twin, graphs inside it included."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import fx, nn

from dendrofx.branchless import cascade, linears, live, picks, repeats, routes
from dendrofx.lowering.isolate import twin
from dendrofx.runtime import attention as attention_
from dendrofx.runtime import branches, fused_int8, int8, kernels, leaves, packed, pairs, require, routing, size_ops
from dendrofx.runtime import cascade as cascade_
from dendrofx.runtime import live as live_
from dendrofx.runtime import repeats as repeats_
from dendrofx.runtime import split_linear as split_linear_

MODULES: Mapping[type[nn.Module], type[nn.Module]] = {
    leaves.LightAfterGate: routes.LightAfterGate,
    leaves.FullOnHardRows: routes.FullOnHardRows,
    leaves.LightOnly: routes.LightOnly,
    cascade_.FullOnDoubtful: cascade.FullOnDoubtful,
    packed.PackedLinear: linears.PackedLinear,
    branches.PackedChain: linears.PackedChain,
    kernels.BFloat16Linear: linears.BFloat16Linear,
    int8.Int8Linear: linears.Int8Linear,
    fused_int8.FusedInt8Linear: linears.FusedInt8Linear,
}
FUNCTIONS: Mapping[Callable[..., Any], Callable[..., Any]] = {
    routing.split_rows: routes.split_rows,
    require.require: routes.require,
    live_.live_rows: live.live_rows,
    live_.unpad_rows: live.unpad_rows,
    live_.pad_rows: live.pad_rows,
    attention_.plan_attention: live.plan_attention,
    attention_.attend_rows: live.attend_rows,
    repeats_.same_rows: repeats.same_rows,
    repeats_.row_runs: repeats.row_runs,
    repeats_.all_rows: repeats.all_rows,
    repeats_.count_runs: repeats.count_runs,
    repeats_.match_runs: repeats.match_runs,
    repeats_.distinct_rows: repeats.distinct_rows,
    repeats_.expand_runs: repeats.expand_runs,
    repeats_.broadcast_runs: repeats.expand_runs,
    repeats_.sample_runs: repeats.sample_runs,
    split_linear_.split_linear: repeats.split_linear,
    split_linear_.splits: repeats.splits,
    pairs.pair_products: repeats.pair_products,
    pairs.joined_pairs: repeats.joined_pairs,
    size_ops.choose_size: torch.sym_ite,
    size_ops.negated: torch.sym_not,
    size_ops.whole_part: math.trunc,
    size_ops.nearest_even: round,
    torch.index_select: picks.index_select,
    torch.gather: picks.gather,
    torch.ops.aten.index_select.default: picks.index_select,
    torch.ops.aten.gather.default: picks.gather,
}
METHODS: Mapping[str, Callable[..., Any]] = {"index_select": picks.index_select, "gather": picks.gather}
LAID_OUT = "packed"  # the attribute of layouts that no exported program can hold


def branchless(
    module: nn.Module, graph: fx.Graph | None = None, instead: Mapping[nn.Module, nn.Module] = MappingProxyType({})
) -> nn.Module:
    """Return a module that computes the same without branches on the values of a call; it shares the weights.

    Args:
        module: left unchanged.
        graph: in place of the graph of a graph module.
        instead: modules inside, and what stands in their place without branches.

    Example:
        >>> torch.export.export(branchless(routed), (x,))
    """
    children = {
        name: child if child is None else instead[child] if child in instead else branchless(child, None, instead)
        for name, child in module._modules.items()
    }
    if isinstance(module, fx.GraphModule):
        root = nn.Module()
        root.__dict__.update(_parameters=dict(module._parameters), _buffers=dict(module._buffers), _modules=children)
        return fx.GraphModule(root, _branchless_graph(module.graph if graph is None else graph)).train(module.training)
    kind = MODULES.get(type(module), type(module))
    if kind is type(module) and all(child is module._modules[name] for name, child in children.items()):
        return module
    made = twin(module, kind)
    made.__dict__.pop(LAID_OUT, None)
    made.__dict__["_modules"] = children
    return made


def _branchless_graph(graph: fx.Graph) -> fx.Graph:
    """Copy a graph, its calls replaced."""
    made = copy.deepcopy(graph)
    for node in made.nodes:
        if node.op == "call_function":
            node.target = FUNCTIONS.get(node.target, node.target)
        elif node.op == "call_method" and node.target in METHODS:
            node.op, node.target = "call_function", METHODS[node.target]
    return made
