"""Capture by `torch.export`, regrouped: for models that FX's own tracer cannot follow, such as Hugging Face transformers.

export records every aten call with symbolic sizes and follows Python control flow that depends on shapes and flags. Its graph
is lifted and flat; here it becomes an ordinary graph module again that scripts:

1. A linear whose weight is `<name>.weight` of an `nn.Linear` is a call of that module, under its name.
2. Regions of no_grad, and of autocast that is off, are inlined. Autocast that is on is refused by name.
3. Asserts on metadata and no-ops (dropout in eval mode, slices that keep all) are dropped; overload names, which do not
   script, are replaced by their packets.
4. Every node keeps its symbolic shape as plain words, `("b", "t", 384)`, for the row analysis (`rows/layout.py`).
"""

from __future__ import annotations

import operator
import warnings
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.graph import CodeGen

from dendrofx.calling import CallForm, arguments
from dendrofx.errors import CaptureError
from dendrofx.inputs import Inputs
from dendrofx.outputs import flatten
from dendrofx.rows.layout import SHAPES, value_shapes

aten = torch.ops.aten
_ASSERTS = {
    "_assert_tensor_metadata", "_assert_scalar", "_assert_async", "sym_constrain_range", "sym_constrain_range_for_size",
}  # fmt: skip
_UNSCRIPTABLE = ("layout", "pin_memory")
_LAST = 2**63 - 1
_BOX = "boxed"


class _Boxed(nn.Module):
    """The model as export can take it: tensors in, a tuple of tensors out."""

    def __init__(self, model: nn.Module, form: CallForm) -> None:
        super().__init__()
        self.add_module(_BOX, model)
        self.form = form

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The output's tensors, in order."""
        named = dict(zip(self.form.tensors, tensors, strict=True))
        return tuple(flatten(self.get_submodule(_BOX)(**named, **self.form.constants))[0])


def export(model: nn.Module, form: CallForm, example: Inputs) -> fx.GraphModule:
    """The model's graph, on a copy of its own that the caller made.

    Args:
        model: in eval mode, without gradients; its Linears become modules of the graph.
        form: how it is called.
        example: inputs; sizes of 1 are doubled, because export takes 0 and 1 for constants.

    Raises:
        CaptureError: what cannot be kept, by name. Whatever torch.export itself raises is passed on.
    """
    given = arguments(model, example)
    tensors = [_doubled(given[name]) for name in form.tensors]
    auto = torch.export.Dim.AUTO
    dims = tuple(dict.fromkeys(range(min(t.dim(), 2)), auto) for t in tensors)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the fused path hides the Linears that it runs
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(_Boxed(model, form), tuple(tensors), dynamic_shapes=(dims,))
            source = program.module(check_guards=False)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return _Regroup(model, form, source).run()


def _doubled(x: Tensor) -> Tensor:
    for dim in range(min(x.dim(), 2)):
        if x.size(dim) == 1 and dim == 0:
            x = torch.cat([x, x], dim)
    return x


class _Regroup:
    """One walk over export's graph that writes ours."""

    def __init__(self, model: nn.Module, form: CallForm, source: Any) -> None:  # noqa: ANN401
        self.modules = dict(model.named_modules(remove_duplicate=False))
        self.form, self.source = form, source
        self.graph = fx.Graph()
        self.graph.set_codegen(CodeGen())
        self.root: dict[str, Any] = {}
        self.names = iter(form.tensors)

    def run(self) -> fx.GraphModule:
        self.write(self.source, {})
        gm = fx.GraphModule(self.root, self.graph, self.form.model)
        self.graph.eliminate_dead_code(is_impure_node=_impure)
        gm.delete_all_unused_submodules()
        gm.recompile()
        return gm.requires_grad_(False).eval()

    def write(self, gm: fx.GraphModule, env: dict[fx.Node, Any]) -> Any:  # noqa: ANN401
        """Copy a graph's nodes; what its output node holds."""
        for node in gm.graph.nodes:
            if node.op == "output":
                result = fx.node.map_arg(node.args[0], lambda n: env[n])
                if gm is self.source:
                    self.write_output(list(result))
                return result
            if node in env:  # an input of an inlined region
                continue
            env[node] = self.copy(gm, node, env)
        raise CaptureError("the exported graph has no output")

    def write_output(self, values: list[fx.Node]) -> None:
        names = self.form.output.names
        if self.form.output.is_dict:
            self.graph.output(dict(zip(names, values, strict=True)))
        else:
            self.graph.output(values[0] if names == ("output",) else tuple(values))

    def copy(self, gm: fx.GraphModule, node: fx.Node, env: dict[fx.Node, Any]) -> Any:  # noqa: ANN401
        """One node, in our form; None where nothing is left of it."""
        name = _op_name(node)
        if node.op == "call_module" or name in _ASSERTS:  # export's guards
            return None
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: env[n])
        if _is_identity(node, name):
            return args[0]
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            return self.inline(gm, node, args, env)
        if node.op == "call_function" and node.target is operator.getitem and isinstance(args[0], list | tuple):
            return args[0][args[1]]  # of an inlined region
        new = self.made(gm, node, name, args, kwargs)
        if isinstance(new, fx.Node):
            new.meta[SHAPES] = value_shapes(node.meta.get("val"))
        return new

    def made(self, gm: fx.GraphModule, node: fx.Node, name: str, args: Any, kwargs: Any) -> Any:  # noqa: ANN401
        if node.op == "placeholder":
            return self.graph.placeholder(next(self.names), type_expr=Tensor)
        if node.op == "get_attr":
            return self.attribute(gm, str(node.target))
        if name == "linear" and (owner := self.owner(node)) is not None:
            self.root[owner] = self.modules[owner]
            return self.graph.create_node("call_module", owner, args[:1])
        if name == "sym_size":
            return self.graph.call_method("size", args)
        target: Any = node.target
        if name == "view":  # rewriting may change the strides of what reaches it
            target = aten.reshape
        elif isinstance(target, torch._ops.OpOverload):
            target = target.overloadpacket
        kwargs = {k: v for k, v in kwargs.items() if k not in _UNSCRIPTABLE}
        return self.graph.create_node("call_function", target, args, kwargs, node.name)

    def attribute(self, gm: fx.GraphModule, target: str) -> Any:  # noqa: ANN401
        value = operator.attrgetter(target)(gm)
        if isinstance(value, nn.Module):  # the body of a region, inlined where it is called
            return None
        name = target.removeprefix(f"{_BOX}.")
        while name in self.root and self.root[name] is not value:
            name += "_"
        self.root[name] = value
        return self.graph.get_attr(name)

    def owner(self, node: fx.Node) -> str | None:
        """The `nn.Linear` whose own weight and bias a linear reads."""
        weight = node.args[1]
        if not isinstance(weight, fx.Node) or weight.op != "get_attr":
            return None
        name = str(weight.target).removeprefix(f"{_BOX}.").removesuffix(".weight")
        module = self.modules.get(name)
        bias = node.args[2] if len(node.args) > 2 else None
        own = isinstance(bias, fx.Node) and str(bias.target).removeprefix(f"{_BOX}.") == f"{name}.bias"
        if type(module) is not nn.Linear or (module.bias is None) != (bias is None) or not (bias is None or own):
            return None
        return name

    def inline(self, gm: fx.GraphModule, node: fx.Node, args: Any, env: dict[fx.Node, Any]) -> Any:  # noqa: ANN401
        """The body of a no_grad or a switched-off autocast region, in its place."""
        kind = str(node.target)
        bodies = [a for a in node.args if isinstance(a, fx.Node) and a.op == "get_attr"]
        bodies = [a for a in bodies if isinstance(operator.attrgetter(str(a.target))(gm), fx.GraphModule)]
        if kind == "wrap_with_autocast" and node.args[2] is not False:
            raise CaptureError(
                f"%{node.name} is an autocast region that is switched on ({node.args[1]}): routing works in float32."
                " Remove torch.autocast from forward"
            )
        if kind not in ("wrap_with_autocast", "wrap_with_set_grad_enabled") or len(bodies) != 1:
            raise CaptureError(f"%{node.name} is a region of its own kind, {kind}, which cannot be inlined")
        body = operator.attrgetter(str(bodies[0].target))(gm)
        inner = [n for n in body.graph.nodes if n.op == "placeholder"]
        return self.write(body, dict(zip(inner, args[node.args.index(bodies[0]) + 1 :], strict=True)))


def _op_name(node: fx.Node) -> str:
    """`linear` for `aten.linear.default`."""
    schema = getattr(node.target, "_schema", None)
    return str(schema.name).removeprefix("aten::") if schema is not None else ""


def _is_identity(node: fx.Node, name: str) -> bool:
    """Dropout in eval mode, and slices that keep everything."""
    if name in ("dropout", "feature_dropout", "alpha_dropout"):
        return node.args[2] is False
    return name == "slice" and node.args[2:] in ((), (0,), (0, _LAST))


def _impure(node: fx.Node) -> bool:
    return node.op in ("placeholder", "output")
