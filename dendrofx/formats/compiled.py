"""A program compiled by AOTInductor: native code of one machine's instruction set, with the weights laid out for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram

from dendrofx.errors import InputError
from dendrofx.formats.cause import cause
from dendrofx.formats.quiet import quietly

# `freezing` folds the weights in, so that products get layouts of their own (1.4 to 1.5 times as fast).
OPTIONS: dict[str, Any] = {"aot_inductor.package": True, "freezing": True}

aten = torch.ops.aten
_Bounds = tuple[float | None, float | None]
# Activations as bounds: what they cut at below and above.
_FUSED: dict[Any, Callable[..., _Bounds]] = {
    aten.relu.default: lambda: (0.0, None),
    aten.relu6.default: lambda: (0.0, 6.0),
    aten.hardtanh.default: lambda low=-1.0, high=1.0: (low, high),
    aten.hardsigmoid.default: lambda: (0.0, 1.0),
    aten.clamp.default: lambda low=None, high=None: (low, high),
    aten.clip.default: lambda low=None, high=None: (low, high),
    aten.clamp_min.default: lambda low: (low, None),
    aten.clamp_max.default: lambda high: (None, high),
}


def keep_nan(graph: fx.Graph) -> None:
    """Replace activations that AOTInductor fuses into a product whose kernel makes a number of NaN (torch 2.13), in place."""
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target not in _FUSED:
            continue
        x, (low, high) = node.args[0], _FUSED[node.target](*node.args[1:])
        if low is None and x.target is aten.clamp_min.default:  # two cuts in this order are fused like `clamp`
            x, low = x.args
        if isinstance(low, fx.Node) or isinstance(high, fx.Node):  # of a call's sizes: not fused
            continue
        with graph.inserting_before(node):
            if node.target is aten.hardsigmoid.default:
                x = graph.call_function(aten.add.Tensor, (graph.call_function(aten.div.Tensor, (x, 6.0)), 0.5))
            x = _cut(graph, x, low, high)
        node.replace_all_uses_with(x)
        graph.erase_node(node)


def _cut(graph: fx.Graph, x: Any, low: float | None, high: float | None) -> Any:  # noqa: ANN401  (a node, to torch any argument)
    """Cut above first, which is not fused; where the bounds cross, all is the upper one, as in `clamp`."""
    if high is not None:
        x = graph.call_function(aten.clamp_max.default, (x, high))
        low = None if low is None else min(low, high)
    return x if low is None else graph.call_function(aten.clamp_min.default, (x, low))


def compiled_files(program: ExportedProgram) -> list[Any]:
    """Compile a program; return the files that torch packages.

    Raises:
        InputError: there is no C++ compiler here, or AOTInductor cannot compile the program.
    """
    args, kwargs = program.example_inputs or ((), {})
    module = program.module(check_guards=False)
    keep_nan(module.graph)
    module.recompile()
    try:
        with torch.no_grad(), quietly():
            files: Any = torch._inductor.aot_compile(module, args, kwargs, options=dict(OPTIONS))
    except Exception as error:
        raise InputError(
            f"AOTInductor cannot compile the transformed module: {cause(error)}. It needs a C++ compiler, g++ say;"
            ' format="pt2" needs none'
        ) from error
    return [files] if isinstance(files, str) else list(files)
