"""Operators that an artifact needs: those that torch itself has, and no other library's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import fx, nn
from torch._ops import OpOverload, OpOverloadPacket

from dendrofx.errors import InputError

# The namespaces of the operators that are there after `import torch` (2.13) and nothing else, and those of TorchScript's own.
PLAIN = frozenset({
    "_c10d_functional", "_c10d_functional_autograd", "_dtensor", "_native", "_quantized", "_test", "aten", "c10d", "cuda",
    "debug_mode_ops", "debugprims", "export", "inductor", "inductor_prims", "mkl", "mkldnn", "mkldnn_prepacked", "onednn", "onnx",
    "prepacked", "prim", "prims", "profiler", "quantization", "quantized", "rngprims", "sparse", "static_runtime", "symm_mem",
})  # fmt: skip


def check_graphs(module: nn.Module) -> None:
    """Raise `InputError` where a module's graphs call operators that plain torch does not have; see `check_operators`."""
    graphs = [m.graph for m in module.modules() if isinstance(m, fx.GraphModule)]
    nodes = [n for graph in graphs for n in graph.nodes if isinstance(n.target, OpOverload | OpOverloadPacket)]
    _refuse({"::".join(str(n.target).split(".")[:2]): n.name for n in nodes})


def check_operators(scripted: torch.jit.ScriptModule) -> None:
    """Raise `InputError` where a script module calls operators that plain torch does not have: it would not load without them.

    Args:
        scripted: as `torch.jit.script` or `freeze` made it; what its `forward` calls is looked at, wherever it stands.
    """
    graph = scripted.inlined_graph  # its nodes live as long as it is held
    _refuse(dict(_calls(graph)))


def _refuse(calls: Mapping[str, str]) -> None:
    """Raise for operators, by name with their nodes, of other namespaces."""
    foreign = sorted(f"{kind} at %{name}" for kind, name in calls.items() if kind.partition("::")[0] not in PLAIN)
    if foreign:
        raise InputError(
            f"the model calls operators that plain torch does not have, {', '.join(foreign)}: a saved module would load only where"
            " their library is imported first. Call the eager module, or have the model compute this in torch's own operators"
        )


def _calls(block: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401  (a graph or a block of one)
    """Yield every operator that a block calls, and the name of what it gives."""
    for node in block.nodes():
        if "::" in (kind := node.kind()):
            name = next((out.debugName() for out in node.outputs()), kind)
            yield kind, name.partition(".")[0]
        for inner in node.blocks():
            yield from _calls(inner)
