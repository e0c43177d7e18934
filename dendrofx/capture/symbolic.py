"""Capture by `torch.fx.symbolic_trace`, with a Tracer whose leaves are torch's own modules and dendrofx's run-time modules."""

from __future__ import annotations

import traceback
import typing
from typing import Any

from torch import Tensor, fx, nn

from dendrofx.errors import CaptureError
from dendrofx.leaves import FullOnHardRows, LightAfterGate, LightBeforeGate, LightWithEvidence, LightWithScales
from dendrofx.routed import as_rows, restore_rows, split_rows
from dendrofx.show import first_line

_LEAVES = (FullOnHardRows, LightAfterGate, LightBeforeGate, LightWithEvidence, LightWithScales)
_GRAPH_FILES = ("torch/fx/", "dendrofx/capture/")


class Tracer(fx.Tracer):
    """FX's tracer, for which the parts of a routed site are leaves too."""

    def __init__(self) -> None:
        super().__init__(autowrap_functions=(as_rows, split_rows, restore_rows))

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Torch's own layers, and dendrofx's run-time leaves."""
        return isinstance(m, _LEAVES) or super().is_leaf_module(m, module_qualified_name)


def symbolic_trace(own: nn.Module, model: nn.Module) -> fx.GraphModule:
    """Trace `own`, a copy of `model` that the graph module will hold.

    Raises:
        CaptureError: the trace failed; names the line, the cause and the next step.
    """
    if isinstance(own, nn.Linear):  # FX would trace into it
        own = nn.Sequential(own).eval()
    tracer = Tracer()
    try:
        graph = tracer.trace(own)
    except Exception as error:
        raise CaptureError(_explain(error, model)) from error
    _annotate(graph, model)
    return fx.GraphModule(tracer.root, graph, type(model).__name__).eval()


def _annotate(graph: fx.Graph, model: nn.Module) -> None:
    """Types that TorchScript can read: none of them a string (postponed annotations), every input has one."""
    try:
        hints = typing.get_type_hints(type(model).forward)
    except Exception:  # names that exist only for type checkers
        hints = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            node.type = hints.get(str(node.target).lstrip("*"), node.type)
            if node.type is None or isinstance(node.type, str):
                node.type = Tensor
        elif isinstance(node.type, str):
            node.type = None


def _explain(error: Exception, model: nn.Module) -> str:
    """Where tracing stopped, why, and what to do about it."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not any(p in f.filename for p in _GRAPH_FILES)]
    place = f" at {frames[-1].filename}:{frames[-1].lineno}  `{frames[-1].line}`" if frames else ""
    if isinstance(error, fx.proxy.TraceError):
        cause = "its forward decides something from values that are known only when it runs"
    else:
        cause = "an operation in its forward does not accept a traced value"
    return (
        f"cannot trace {type(model).__name__}{place}: {cause} ({first_line(error)}). Next step: transform the submodule that holds the"
        " Linears, e.g. model.mlp = dendrofx.transform(model.mlp), or move that line out of forward"
    )


def is_routed(value: Any) -> bool:  # noqa: ANN401
    """Whether a module already holds routed sites."""
    return isinstance(value, nn.Module) and any(isinstance(m, _LEAVES) for m in value.modules())
