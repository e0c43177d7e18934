"""Capture by `torch.export`: for models that FX's own tracer cannot follow, such as Hugging Face transformers.

export records every aten call with symbolic sizes and follows Python control flow that depends on shapes and flags. Its graph
is lifted and flat; written again by `writer.py` it is an ordinary graph module that scripts. Besides what is said there:

1. Regions of no_grad, and of autocast that is off, are inlined. Autocast that is on is refused by name.
2. Asserts on metadata are dropped. What export says about the sizes that its graph holds for (`docs.size(0) == 50`) becomes
   guards of the call (`dendrofx/values/guards.py`); other sizes, and one more than each limit, are run besides.
3. Every node keeps its symbolic shape as plain words, `("b", "t", 384)`, for the row analysis (`rows/layout.py`).
"""

from __future__ import annotations

import operator
import warnings
from typing import Any, cast

import torch
from torch import fx, nn

from dendrofx.errors import CaptureError
from dendrofx.graph.capture.flat_wrapper import FlatWrapper, Run, two_samples
from dendrofx.graph.capture.tracing import bags_of_samples, plain_attention, tracing
from dendrofx.graph.capture.writer import Writer, op_name
from dendrofx.graph.shapes import value_dtype, value_shapes
from dendrofx.values.calling import CallForm
from dendrofx.values.guards import from_export
from dendrofx.values.inputs import Inputs
from dendrofx.values.meta import DTYPE, SHAPES

_ASSERTS = {
    "_assert_tensor_metadata", "_assert_scalar", "_assert_async", "sym_constrain_range", "sym_constrain_range_for_size",
}  # fmt: skip
MOST = 4096  # limits above this are not tried
_REGIONS = ("wrap_with_autocast", "wrap_with_set_grad_enabled")


def export(model: nn.Module, form: CallForm, example: Inputs) -> Run:
    """Return the model's graph, on a copy of its own that the caller made, and the limits of its sizes.

    Args:
        model: in eval mode, without gradients; its Linears become modules of the graph.
        form: how it is called.
        example: inputs; a single sample is doubled, because export takes sizes of 0 and 1 for constants.

    Raises:
        CaptureError: what cannot be kept, by name. Whatever torch.export itself raises is passed on.
    """
    import torch.export._trace  # takes 2 s, and most models need none of it; `tracing` looks for it

    tensors = two_samples(example)
    auto = torch.export.Dim.AUTO
    dims = tuple(dict.fromkeys(range(t.dim()), auto) for t in tensors)
    with plain_attention(), bags_of_samples(), tracing(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(FlatWrapper(model, form), tensors, dynamic_shapes=(dims,))
        source = program.module(check_guards=False)
    writer = _Regroup(model, form)
    writer.output(list(writer.write(source, {})))
    guards = from_export(program._guards_code, form.tensors)
    return Run(writer.finish(), limits=_limits(program, form), guards=guards)


def _limits(program: torch.export.ExportedProgram, form: CallForm) -> frozenset[tuple[str, int, int]]:
    """Read the limits from the ranges of export's symbols: a table of 512 positions, or an `if x.size(0) > 1000`."""
    inputs = [n.meta["val"] for n in program.graph.nodes if n.op == "placeholder"][-len(form.tensors) :]
    found = set()
    for name, value in zip(form.tensors, inputs, strict=True):
        for axis, size in enumerate(value.shape):
            known = program.range_constraints.get(size.node.expr) if isinstance(size, torch.SymInt) else None
            if known is not None and known.upper.is_Integer and known.upper <= MOST:
                found.add((name, axis, int(known.upper)))
    return frozenset(found)


class _Regroup(Writer):
    """One walk over export's graph that writes ours."""

    def __init__(self, model: nn.Module, form: CallForm) -> None:
        super().__init__(model, form)
        self.names = iter(form.tensors)

    def write(self, gm: fx.GraphModule, env: dict[fx.Node, Any]) -> Any:  # noqa: ANN401
        """Copy a graph's nodes; what its output node holds."""
        for node in gm.graph.nodes:
            if node.op == "output":
                return fx.node.map_arg(node.args[0], lambda n: env[n])
            if node not in env:  # the inputs of an inlined region are
                env[node] = self.copy(gm, node, env)
        raise CaptureError("the exported graph has no output")

    def copy(self, gm: fx.GraphModule, node: fx.Node, env: dict[fx.Node, Any]) -> Any:  # noqa: ANN401
        """Write one node in our form; None where nothing is left of it."""
        if node.op == "call_module" or op_name(node.target) in _ASSERTS:  # export's guards
            return None
        args, kwargs = cast(tuple[Any, Any], fx.node.map_arg((node.args, node.kwargs), lambda n: env[n]))
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            return self.inline(gm, node, args)
        if node.target is operator.getitem and isinstance(args[0], list | tuple):  # of an inlined region
            return args[0][args[1]]
        if node.op == "get_attr":
            value = operator.attrgetter(str(node.target))(gm)
            new = None if isinstance(value, nn.Module) else self.attribute(str(node.target), value)
        elif node.op == "placeholder":
            new = self.placeholder(next(self.names))
        else:
            new = self.call(node.target, args, kwargs, node.name, _caller(node))
        if isinstance(new, fx.Node) and SHAPES not in new.meta:
            new.meta[SHAPES] = value_shapes(node.meta.get("val"))
            new.meta[DTYPE] = value_dtype(node.meta.get("val"))
        return new

    def inline(self, gm: fx.GraphModule, node: fx.Node, args: tuple[Any, ...]) -> Any:  # noqa: ANN401
        """Write the body of a no_grad or a switched-off autocast region, in its place."""
        kind = str(node.target)
        if kind == "wrap_with_autocast" and node.args[2] is not False:
            raise CaptureError(
                f"%{node.name} is an autocast region that is switched on ({node.args[1]}): routing works in float32."
                " Remove torch.autocast from forward"
            )
        attributes = [a for a in node.args if isinstance(a, fx.Node) and a.op == "get_attr"]
        bodies = [(a, operator.attrgetter(str(a.target))(gm)) for a in attributes]
        bodies = [(a, body) for a, body in bodies if isinstance(body, fx.GraphModule)]
        if kind not in _REGIONS or len(bodies) != 1:
            raise CaptureError(f"%{node.name} is a region of its own kind, {kind}, which cannot be inlined")
        ((at, body),) = bodies
        inner = [n for n in body.graph.nodes if n.op == "placeholder"]
        return self.write(body, dict(zip(inner, args[node.args.index(at) + 1 :], strict=True)))


def _caller(node: fx.Node) -> str:
    """Return the name of the module whose forward made a call."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return str(stack[-1][0]) if stack else ""
