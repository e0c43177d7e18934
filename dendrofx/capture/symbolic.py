"""Capture by `torch.fx.symbolic_trace`, with a Tracer whose leaves are torch's own modules and dendrofx's run-time modules."""

from __future__ import annotations

import typing
from typing import Any

import torch
from torch import Tensor, fx, nn

from dendrofx.capture.boxed import place_of
from dendrofx.errors import CaptureError
from dendrofx.inputs import Inputs
from dendrofx.leaves import FullOnHardRows, LightAfterGate, LightBeforeGate, LightWithEvidence, LightWithScales
from dendrofx.outputs import flatten
from dendrofx.routed import as_rows, restore_rows, split_rows
from dendrofx.show import first_line

_LEAVES = (FullOnHardRows, LightAfterGate, LightBeforeGate, LightWithEvidence, LightWithScales)


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


@torch.no_grad()
def refuse_unscriptable(gm: fx.GraphModule, model: nn.Module, example: Inputs) -> None:
    """Leave to the other ways what FX traces and TorchScript cannot take.

    Raises:
        CaptureError: an output that is neither tensor, tuple nor dict of tensors; or an input that may be None, of which FX has
            traced one of two cases.
    """
    output = flatten(example.call(model))[1]
    if not output.scripts:
        raise CaptureError(f"its output, a {output.kind.__name__}, is none that TorchScript can return")
    for node in gm.graph.nodes:
        if node.op == "placeholder" and node.users and type(None) in typing.get_args(node.type):
            raise CaptureError(f"its input {node.target} may be None; a graph computes one of the two cases")


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
    if isinstance(error, fx.proxy.TraceError):
        cause = "its forward decides something from values that are known only when it runs"
    else:
        cause = "an operation in its forward does not accept a traced value"
    return (
        f"cannot trace {type(model).__name__}{place_of(error)}: {cause} ({first_line(error)}). Next step: transform the submodule"
        " that holds the Linears, e.g. model.mlp = dendrofx.transform(model.mlp), or move that line out of forward"
    )


def is_routed(value: Any) -> bool:  # noqa: ANN401
    """Whether a module already holds routed sites."""
    return isinstance(value, nn.Module) and any(isinstance(m, _LEAVES) for m in value.modules())
