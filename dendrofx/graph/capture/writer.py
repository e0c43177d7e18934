"""Writing a captured graph in the one form that the rest of dendrofx reads and TorchScript takes.

1. A linear whose weight and bias are those of an `nn.Linear` is a call of that module, under its name. A weight that is tied to
   another parameter is found under every name that it has.
2. What hands its input on unchanged (dropout in eval mode, slices that keep all) is left out.
3. Overload names, which do not script, are replaced by their packets, and arithmetic of sizes by Python's own; `view` by `reshape`,
   because rewriting may change strides.
4. Nodes without a user go, unless they write in place.
"""

from __future__ import annotations

import functools
import math
import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.graph import CodeGen

from dendrofx.graph.activations import is_in_place
from dendrofx.graph.capture.behaviour import has_own_forward
from dendrofx.graph.capture.flat_wrapper import WRAPPED
from dendrofx.graph.capture.names import free_name
from dendrofx.runtime.size_ops import choose_size, nearest_even, negated, whole_part
from dendrofx.values.calling import CallForm

aten = torch.ops.aten
_UNSCRIPTABLE = ("layout", "pin_memory")
_LAST = 2**63 - 1
_SAME = ("dropout", "feature_dropout", "alpha_dropout")
_MATH = ("sqrt", "sin", "cos", "tan", "sinh", "cosh", "tanh", "asin", "acos", "atan", "log2")
# What a size may be computed with in an exported graph, and what scripts and computes the same.
_OF_SIZES: dict[Any, Any] = {
    torch.sym_min: min,
    torch.sym_max: max,
    torch.sym_not: negated,
    torch.sym_float: float,
    torch.sym_int: int,
    torch.sym_ite: choose_size,
    math.trunc: whole_part,
    operator.abs: abs,
    round: nearest_even,
    **{getattr(torch, f"_sym_{name}"): getattr(math, name) for name in _MATH},
}


class Writer:
    """A graph in the making.

    Args:
        model: whose Linears become modules of the graph.
        form: how it is called.
    """

    def __init__(self, model: nn.Module, form: CallForm) -> None:
        self.model, self.form = model, form
        self.modules = dict(model.named_modules(remove_duplicate=False))
        self.graph = fx.Graph()
        self.graph.set_codegen(CodeGen())
        self.root: dict[str, Any] = {}
        self.linears: dict[int, list[str]] = {}
        for name, module in self.modules.items():
            if type(module) is nn.Linear and not has_own_forward(module):
                self.linears.setdefault(id(module.weight), []).append(name)

    def attribute(self, target: str, value: Any) -> fx.Node:  # noqa: ANN401
        """Write a read of a tensor that the graph module will hold, as far as it is free under its own name."""
        name = free_name(target.removeprefix(f"{WRAPPED}."))
        own = self.parameter(target.removeprefix(f"{WRAPPED}."))
        value = value if own is None else own
        while name in self.root and self.root[name] is not value:
            name += "_"
        self.root[name] = value
        return self.graph.get_attr(name)

    def call(
        self,
        target: Any,  # noqa: ANN401
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        name: str | None = None,
        called: str = "",
    ) -> Any:  # noqa: ANN401
        """Write one operation in our form; its input where it changes nothing.

        Args:
            target: an aten overload or packet, or another function.
            args: nodes of this graph, and constants.
            kwargs: the same.
            name: of the node.
            called: the module that made the call, for weights that several modules have.
        """
        kind = op_name(target)
        if (kind in _SAME and args[2] is False) or (kind == "slice" and args[2:] in ((), (0,), (0, _LAST))):
            return args[0]
        if kind == "linear" and (owner := self.owner(args[1], args[2] if len(args) > 2 else None, called)) is not None:
            self.root[free_name(owner)] = self.modules[owner]
            return self.graph.create_node("call_module", free_name(owner), args[:1])
        if kind == "sym_size" or (kind == "size" and len(args) == 2):
            return self.graph.call_method("size", args)
        if target is torch.sym_sum:
            return functools.reduce(lambda a, b: self.graph.call_function(operator.add, (a, b)), args[0])
        if target is round and args[1:] == (None,):
            args = args[:1]
        target = _OF_SIZES.get(target, target)
        target = aten.reshape if kind == "view" and isinstance(args[1], list | tuple) else target
        target = target.overloadpacket if isinstance(target, torch._ops.OpOverload) else target
        kwargs = {k: v for k, v in kwargs.items() if k not in _UNSCRIPTABLE}
        return self.graph.create_node("call_function", target, args, kwargs, name)

    def owner(self, weight: Any, bias: Any, called: str = "") -> str | None:  # noqa: ANN401
        """Return the `nn.Linear` that has these two for its own, by its name; the one that was called, where several have."""
        found = self.linears.get(id(self.own(weight)), [])
        found = [name for name in found if self.modules[name].bias is self.own(bias)]
        if not found:
            return None
        chosen = called.removeprefix(f"{WRAPPED}.")
        module = self.modules[chosen if chosen in found else found[0]]
        return next(name for name in found if self.modules[name] is module)

    def own(self, value: Any) -> Any:  # noqa: ANN401
        """Return the model's tensor that a node reads; the value itself where it is none."""
        reads = isinstance(value, fx.Node) and value.op == "get_attr"
        return self.root[str(value.target)] if reads else value

    def parameter(self, target: str) -> Tensor | None:
        """Return the model's tensor of that name."""
        owner, _, name = target.rpartition(".")
        value = getattr(self.modules.get(owner), name, None)
        return value if isinstance(value, Tensor) else None

    def output(self, values: list[fx.Node]) -> None:
        """Write the output: one tensor, a dict of tensors, or a tuple, which a scripted module can return."""
        form = self.form.output
        assert form is not None
        if form.leaf == "tensor":
            self.graph.output(values[0])
        else:
            self.graph.output(dict(zip(form.names, values, strict=True)) if form.is_dict else tuple(values))

    def placeholder(self, name: str) -> fx.Node:
        """Write an input."""
        return self.graph.placeholder(name, type_expr=Tensor)

    def finish(self) -> fx.GraphModule:
        """Return the graph module, without gradients."""
        gm = fx.GraphModule(self.root, self.graph, self.form.model)
        self.graph.eliminate_dead_code(is_impure_node=_stays)
        gm.delete_all_unused_submodules()
        gm.recompile()
        return gm.requires_grad_(False).eval()


def op_name(target: Any) -> str:  # noqa: ANN401
    """Return `linear` for `aten.linear.default` and for its packet; empty for what is no aten operation."""
    name = str(target) if isinstance(target, torch._ops.OpOverload | torch._ops.OpOverloadPacket) else ""
    return name.removeprefix("aten.").split(".")[0] if name.startswith("aten.") else ""


def _stays(node: fx.Node) -> bool:
    return node.op in ("placeholder", "output") or is_in_place(node)
