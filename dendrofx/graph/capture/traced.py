"""Capture by `torch.jit.trace`: for models that neither of the graph tracers can follow but that can be run.

Such a model turns tensors into Python values (`.item()`, `int(x)`, `if mask.all()`, NumPy) where that does not change what it
computes, or calls operations that export has no rules for. `torch.jit.trace` records the aten calls of one run and takes those
values for constants. Its TorchScript graph is read back, node by node, into an FX graph (`writer.py`), so that routed sites are
swapped in by the same passes, and chains of two Linears are found, as after any other capture.

What a trace has fixed is never trusted: the graph is run on other sizes, masks and values (`variants.py`), and the lines on
which the model decided something are quoted in errors and in the plan. What is not a plain operation (a scripted function with
an `if`, an `autograd.Function`) is refused by name.
"""

from __future__ import annotations

import linecache
import operator
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch.jit._trace import TracerWarning

from dendrofx.errors import CaptureError
from dendrofx.graph.capture.flat_wrapper import FlatWrapper, Run, two_samples
from dendrofx.graph.capture.tracing import plain_attention, tracing
from dendrofx.graph.capture.writer import Writer
from dendrofx.values.calling import CallForm
from dendrofx.values.inputs import Inputs

aten = torch.ops.aten
_NUMBERS: dict[str, Callable[[Any], Any]] = {
    "aten::Int": int,
    "aten::IntImplicit": int,
    "aten::Float": float,
    "aten::FloatImplicit": float,
    "aten::Bool": bool,
}

_UNPACKS = ("prim::ListUnpack", "prim::TupleUnpack")


def trace(model: nn.Module, form: CallForm, example: Inputs) -> Run:
    """Return the model's graph, on a copy of its own that the caller made, and the lines whose values it fixed.

    Args:
        model: in eval mode, without gradients; its Linears become modules of the graph.
        form: how it is called.
        example: inputs; a single sample is doubled.

    Raises:
        CaptureError: what cannot be read back, by name. Whatever torch.jit.trace itself raises is passed on.
    """
    flat = FlatWrapper(model, form).eval()
    with plain_attention(), tracing(model), torch.no_grad(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        traced = torch.jit.trace(flat, two_samples(example), check_trace=False)
    reader = _Reader(model, form, flat)
    reader.read(traced.inlined_graph)
    fixed = dict.fromkeys(_quoted(w) for w in caught if issubclass(w.category, TracerWarning))
    return Run(reader.finish(), tuple(fixed))


def _quoted(warning: warnings.WarningMessage) -> str:
    """`model.py:12  if x.sum() > 0:`."""
    line = linecache.getline(warning.filename, warning.lineno).strip()
    return f"{Path(warning.filename).name}:{warning.lineno}  `{line}`"


class _Reader(Writer):
    """One walk over a TorchScript graph that writes ours."""

    def __init__(self, model: nn.Module, form: CallForm, flat: nn.Module) -> None:
        super().__init__(model, form)
        self.flat = flat
        self.env: dict[str, Any] = {}
        self.paths: dict[str, str] = {}  # of values that are modules, and of attributes

    def read(self, graph: Any) -> None:  # noqa: ANN401  (torch._C.Graph has no stub)
        """Copy every node, then the output."""
        this, *inputs = graph.inputs()
        self.paths[this.debugName()] = ""
        for name, value in zip(self.form.tensors, inputs, strict=True):
            self.env[value.debugName()] = self.placeholder(name)
        for node in graph.nodes():
            outputs, made = list(node.outputs()), self.made(node)
            several = len(outputs) != 1 or node.kind() in _UNPACKS
            for i, out in enumerate(outputs):
                self.env[out.debugName()] = self.item(made, i) if several else made
        (result,) = (self.env[o.debugName()] for o in graph.outputs())
        self.output(list(result))

    def made(self, node: Any) -> Any:  # noqa: ANN401
        """Return what one node gives, in our graph; what holds its outputs, where it has several."""
        kind: str = node.kind()
        if kind == "prim::GetAttr":
            return self.get(node)
        if kind == "prim::Constant":
            return self.constant(node.output().toIValue())
        args = [self.env[i.debugName()] for i in node.inputs()]
        if kind == "prim::ListConstruct":
            return args
        if kind == "prim::TupleConstruct":
            return tuple(args)
        if kind in _UNPACKS:
            return args[0]
        if kind == "prim::NumToTensor":
            return self.tensor_of(args[0])
        if kind in _NUMBERS:
            return self.number(_NUMBERS[kind], args[0])
        if not kind.startswith("prim::") and not list(node.blocks()):
            return self.operation(node, args)
        what = f"a call of the autograd.Function {node.pyname()}" if kind == "prim::PythonOp" else kind
        raise CaptureError(f"the trace holds {what}, which is no plain operation{_place(node)}")

    def constant(self, value: Any) -> Any:  # noqa: ANN401
        return self.attribute(f"constant_{len(self.root)}", value) if isinstance(value, torch.Tensor) else value

    def get(self, node: Any) -> Any:  # noqa: ANN401
        """Return a submodule, of which only the path is kept, or one of its tensors."""
        path = f"{self.paths[node.input().debugName()]}.{node.s('name')}".lstrip(".")
        self.paths[node.output().debugName()] = path
        value = operator.attrgetter(path)(self.flat)
        return self.attribute(path, value) if isinstance(value, torch.Tensor) else None

    def item(self, value: Any, index: int) -> Any:  # noqa: ANN401
        if isinstance(value, fx.Node):
            return self.graph.call_function(operator.getitem, (value, index))
        return value[index]

    def tensor_of(self, number: Any) -> Any:  # noqa: ANN401
        """Return a size as a tensor, which the trace computes with."""
        if isinstance(number, fx.Node):
            return self.graph.call_function(aten.scalar_tensor, (number,), {"dtype": torch.int64})
        return self.constant(torch.tensor(number))

    def number(self, kind: Callable[[Any], Any], value: Any) -> Any:  # noqa: ANN401
        """Return a tensor as a number; of a size that became a tensor, the size itself."""
        if not isinstance(value, fx.Node):
            return kind(value)
        if kind is int and value.target is aten.scalar_tensor:
            return value.args[0]
        return self.graph.call_function(kind, (value,))

    def operation(self, node: Any, args: list[Any]) -> Any:  # noqa: ANN401
        """Write an operation: by position as far as its schema allows, then by name; defaults are left out."""
        namespace, _, name = node.kind().partition("::")
        schema = torch._C.parse_schema(node.schema())
        given = list(zip(schema.arguments, args, strict=True))
        while given and given[-1][0].has_default_value() and _same(given[-1][0].default_value, given[-1][1]):
            given.pop()
        by_position = tuple(value for argument, value in given if not argument.kwarg_only)
        by_name = {argument.name: value for argument, value in given if argument.kwarg_only}
        called = str(node.scopeName()).rpartition("/")[2].removeprefix("__module.")
        return self.call(getattr(getattr(torch.ops, namespace), name), by_position, by_name, called=called)


def _same(default: Any, value: Any) -> bool:  # noqa: ANN401
    return type(default) is type(value) and bool(default == value)


def _place(node: Any) -> str:  # noqa: ANN401
    """Return the innermost line outside torch that made a node."""
    lines = [line.strip() for line in str(node.sourceRange()).splitlines() if line.strip()]
    own = [line for line in lines if not line.startswith(str(Path(torch.__file__).parent))]
    return f" ({own[0]})" if own else ""
