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
# Activations as bounds: what they cut at below and above.
_FUSED: dict[Any, Callable[..., tuple[float, float | None]]] = {
    aten.relu.default: lambda: (0.0, None),
    aten.hardtanh.default: lambda low=-1.0, high=1.0: (low, high),
    aten.hardsigmoid.default: lambda: (0.0, 1.0),
}


def keep_nan(graph: fx.Graph) -> None:
    """Replace activations that AOTInductor fuses into a product whose kernel makes a number of NaN (torch 2.13), in place."""
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target not in _FUSED:
            continue
        low, high = _FUSED[node.target](*node.args[1:])
        with graph.inserting_before(node):
            x = node.args[0]
            if node.target is aten.hardsigmoid.default:
                x = graph.call_function(aten.add.Tensor, (graph.call_function(aten.div.Tensor, (x, 6.0)), 0.5))
            if high is not None:
                x = graph.call_function(aten.clamp_max.default, (x, high))
            x = graph.call_function(aten.clamp_min.default, (x, low))
        node.replace_all_uses_with(x)
        graph.erase_node(node)


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
