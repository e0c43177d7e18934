"""Capture: from an `nn.Module` to a graph module that computes the same function.

`torch.fx.symbolic_trace` with a Tracer whose leaves are torch's own modules and dendrofx's run-time modules. The graph is run
against the model on example inputs before it is trusted.
"""

from __future__ import annotations

import copy
import traceback
import typing
from typing import Any

import torch
from torch import Tensor, fx, nn

from dendrofx.errors import CaptureError, InputError
from dendrofx.find_sites import LINEARS
from dendrofx.inputs import Inputs, tensors_of
from dendrofx.leaves import FullOnHardRows, LightAfterGate, LightBeforeGate, LightWithEvidence, LightWithScales
from dendrofx.routed import as_rows, restore_rows, split_rows

_LEAVES = (FullOnHardRows, LightAfterGate, LightBeforeGate, LightWithEvidence, LightWithScales)
_GRAPH_FILES = ("torch/fx/", "dendrofx/capture.py")


class Tracer(fx.Tracer):
    """FX's tracer, for which the parts of a routed site are leaves too."""

    def __init__(self) -> None:
        super().__init__(autowrap_functions=(as_rows, split_rows, restore_rows))

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Torch's own layers, and dendrofx's run-time leaves."""
        return isinstance(m, _LEAVES) or super().is_leaf_module(m, module_qualified_name)


def capture(model: nn.Module, example: Inputs | None = None) -> fx.GraphModule:
    """Trace a copy of `model`; the model itself is never touched.

    Args:
        model: in eval mode, on the CPU.
        example: inputs to verify the graph on; without them it is not verified.

    Returns:
        A graph module without gradients, with its own copy of the parameters.

    Raises:
        InputError: training mode, or parameters that are not on the CPU.
        CaptureError: the trace failed, or computes something else; names the cause and the next step.
    """
    _check(model)
    own = copy.deepcopy(model).requires_grad_(False)
    if isinstance(own, nn.Linear):  # FX would trace into it
        own = nn.Sequential(own).eval()
    tracer = Tracer()
    try:
        graph = tracer.trace(own)
    except Exception as error:
        raise CaptureError(_explain(error, model)) from error
    _annotate(graph, model)
    gm = fx.GraphModule(tracer.root, graph, type(model).__name__)
    gm.meta[LINEARS] = {name: type(m).__name__ for name, m in own.named_modules() if isinstance(m, nn.Linear)}
    gm.eval()
    if example is not None:
        verify(model, gm, example)
    return gm


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


def _check(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise InputError(f"transform takes an nn.Module, got {type(model).__name__}")
    training = next((name or "the model" for name, m in model.named_modules() if m.training), None)
    if training is not None:
        raise InputError(f"'{training}' ({type(model).__name__}) is in training mode: call model.eval() first")
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.device.type != "cpu":
            raise InputError(f"'{name}' is on {tensor.device}; dendrofx routes on CPUs: call model.to('cpu') first")


@torch.no_grad()
def verify(model: nn.Module, gm: fx.GraphModule, example: Inputs) -> None:
    """Raise `CaptureError` unless graph and model give the same bits on `example`."""
    wanted, got = tensors_of(example.call(model)), tensors_of(example.call(gm))
    same = len(wanted) == len(got) and all(
        a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(wanted, got, strict=True)
    )
    if not same:
        far = max(
            (float((a - b).abs().max()) for a, b in zip(wanted, got, strict=False) if a.shape == b.shape), default=None
        )
        raise CaptureError(
            f"the captured graph of {type(model).__name__} differs from the model on {example} (largest difference"
            f" {far}): its forward does something at trace time that it does not do per call. Transform the submodule"
            " that holds the Linears instead, e.g. model.encoder = dendrofx.transform(model.encoder)"
        )


def _explain(error: Exception, model: nn.Module) -> str:
    """Where tracing stopped, why, and what to do about it."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not any(p in f.filename for p in _GRAPH_FILES)]
    place = f" at {frames[-1].filename}:{frames[-1].lineno}  `{frames[-1].line}`" if frames else ""
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if isinstance(error, fx.proxy.TraceError):
        cause = "its forward decides something from values that are known only when it runs"
    else:
        cause = "an operation in its forward does not accept a traced value"
    return (
        f"cannot trace {type(model).__name__}{place}: {cause} ({first}). Next step: transform the submodule that holds the"
        " Linears, e.g. model.mlp = dendrofx.transform(model.mlp), or move that line out of forward"
    )


def is_routed(value: Any) -> bool:  # noqa: ANN401
    """Whether a module already holds routed sites."""
    return isinstance(value, nn.Module) and any(isinstance(m, _LEAVES) for m in value.modules())
