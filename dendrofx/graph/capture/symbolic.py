"""Capture by `torch.fx.symbolic_trace`, with a Tracer whose leaves are torch's own modules and dendrofx's run-time modules."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx, nn

from dendrofx.errors import CaptureError
from dendrofx.graph.capture.behaviour import has_own_forward
from dendrofx.graph.capture.flat_wrapper import place_of
from dendrofx.graph.capture.names import free_name
from dendrofx.graph.capture.tracing import tracing
from dendrofx.graph.show import first_line
from dendrofx.runtime.leaves import (
    FullOnHardRows,
    LightAfterGate,
    LightBeforeGate,
    LightOnly,
    LightWithEvidence,
    LightWithScales,
)
from dendrofx.runtime.routing import as_rows, restore_rows, split_rows
from dendrofx.values.calling import CallForm

_LEAVES = (FullOnHardRows, LightAfterGate, LightBeforeGate, LightOnly, LightWithEvidence, LightWithScales)


class Tracer(fx.Tracer):
    """FX's tracer, for which the parts of a routed site are leaves too.

    Args:
        form: how the root is called; then the graph's inputs are its tensors, and hooks of the root are traced with it. By
            default FX's own way.
    """

    def __init__(self, form: CallForm | None = None) -> None:
        super().__init__(autowrap_functions=() if form is not None else (as_rows, split_rows, restore_rows))
        self.form = form

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Keep torch's own layers as they are, and dendrofx's run-time leaves."""
        if m is self.root or has_own_forward(m):
            return False
        return isinstance(m, _LEAVES) or super().is_leaf_module(m, module_qualified_name)

    def create_args_for_root(
        self,
        root_fn: Any,  # noqa: ANN401  (FX's own)
        is_module: bool,
        concrete_args: Any = None,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Return the graph's inputs: a tensor by name for each of the form's."""
        if (form := self.form) is None:
            return super().create_args_for_root(root_fn, is_module, concrete_args)
        tensors = [self.create_proxy("placeholder", name, (), {}, type_expr=Tensor) for name in form.tensors]

        def call(root: nn.Module, *proxies: fx.Proxy) -> Any:  # noqa: ANN401
            return form.call_with(root, proxies)

        return call, [self.root, *tensors]


def symbolic_trace(own: nn.Module, model: nn.Module, form: CallForm) -> fx.GraphModule:
    """Trace `own`, a copy of `model` that the graph module will hold.

    Args:
        own: in eval mode, without gradients.
        model: for messages.
        form: how it is called.

    Raises:
        CaptureError: the trace failed; names the line, the cause and the next step.
    """
    if isinstance(own, nn.Linear):  # a graph has to call it
        own = nn.Sequential(own).eval()
    tracer = Tracer(form)
    try:
        with tracing(own, Tracer):
            graph = tracer.trace(own)
    except Exception as error:
        raise CaptureError(_explain(error, model)) from error
    if not _is_returned(next(n for n in reversed(graph.nodes) if n.op == "output").args[0]):
        raise CaptureError("its output is none that TorchScript can return: a tensor, a tuple, or a dict of tensors")
    for node in graph.nodes:
        if isinstance(node.type, str):  # a postponed annotation, which TorchScript cannot read
            node.type = None
    return fx.GraphModule(_root(own, graph), graph, type(model).__name__).eval()


def _root(own: nn.Module, graph: fx.Graph) -> nn.Module | dict[str, Any]:
    """Say where the graph's targets are; those that a graph module could not hold under their own names get others."""
    nodes = [n for n in graph.nodes if n.op in ("call_module", "get_attr")]
    if all(free_name(str(n.target)) == n.target for n in nodes):
        return own
    held: dict[str, Any] = {}
    for node in nodes:
        found: Any = own
        for part in str(node.target).split("."):
            found = getattr(found, part)
        node.target = free_name(str(node.target))
        held[node.target] = found
    return held


def _is_returned(value: Any) -> bool:  # noqa: ANN401  (whatever FX allows)
    """Return whether TorchScript can return what a graph does: a tensor, a list or dict of tensors, or a tuple of such."""
    if isinstance(value, tuple):
        return all(_is_returned(v) for v in value)
    if isinstance(value, list):
        return all(_is_tensor(v) for v in value)
    if isinstance(value, dict):
        return all(isinstance(k, str) and _is_tensor(v) for k, v in value.items())
    return isinstance(value, fx.Node) or value is None or isinstance(value, bool | int | float | str)


def _is_tensor(value: Any) -> bool:  # noqa: ANN401
    """Return whether a value is a node that is no size, nor a number made of sizes."""
    if not isinstance(value, fx.Node):
        return False
    if value.op == "call_method":
        return value.target not in ("size", "dim", "numel", "item")
    if value.op != "call_function":
        return True
    if value.target is getattr:
        return value.args[1] not in ("shape", "ndim")
    made = [a for a in value.args if isinstance(a, fx.Node)]
    return getattr(value.target, "__module__", "") != "_operator" or any(map(_is_tensor, made))


def _explain(error: Exception, model: nn.Module) -> str:
    """Say where tracing stopped, why, and what to do about it."""
    if isinstance(error, fx.proxy.TraceError):
        cause = "its forward decides something from values that are known only when it runs"
    else:
        cause = "an operation in its forward does not accept a traced value"
    return (
        f"cannot trace {type(model).__name__}{place_of(error)}: {cause} ({first_line(error)}). Next step: transform the submodule"
        " that holds the Linears, e.g. model.mlp = dendrofx.transform(model.mlp), or move that line out of forward"
    )


def is_routed(value: Any) -> bool:  # noqa: ANN401
    """Return whether a module already holds routed sites."""
    return isinstance(value, nn.Module) and any(isinstance(m, _LEAVES) for m in value.modules())
