"""The activations that may stand between two Linears of a site, in each of their spellings, and what else may stand there.

| activation | module         | function                | method   | exported         | Lipschitz constant |
|------------|----------------|-------------------------|----------|------------------|--------------------|
| ReLU       | `nn.ReLU`      | `F.relu`, `torch.relu`  | `relu`   | `aten.relu`      | 1                  |
| Tanh       | `nn.Tanh`      | `F.tanh`, `torch.tanh`  | `tanh`   | `aten.tanh`      | 1                  |
| GELU       | `nn.GELU`      | `F.gelu`                |          | `aten.gelu`      | 1.129 (both forms) |
| SiLU       | `nn.SiLU`      | `F.silu`                |          | `aten.silu`      | 1.1                |
| Hardswish  | `nn.Hardswish` | `F.hardswish`           |          | `aten.hardswish` | 1.5                |

Functions, methods and aten operations also with a trailing underscore. The constants are the largest absolute slopes, rounded up;
`tests/graph/test_activations.py` checks them on a dense grid. An activation that a model composes of smaller operations, such as
GPT-2's `gelu_new`, is not recognised: its two Linears are two sites.
"""

from __future__ import annotations

import operator

import torch
import torch.nn.functional as F
from torch import fx, nn

LIPSCHITZ: dict[type[nn.Module], float] = {
    nn.ReLU: 1.0,
    nn.Tanh: 1.0,
    nn.GELU: 1.129,
    nn.SiLU: 1.1,
    nn.Hardswish: 1.5,
}

aten = torch.ops.aten
# Every function of these names that torch has, also with an underscore.
_FUNCTIONS: dict[object, type[nn.Module]] = {
    getattr(library, name): kind
    for kind in LIPSCHITZ
    for name in (kind.__name__.lower(), f"{kind.__name__.lower()}_")
    for library in (F, torch, aten)
    if hasattr(library, name)
}
_METHODS: dict[object, type[nn.Module]] = {"relu": nn.ReLU, "relu_": nn.ReLU, "tanh": nn.Tanh, "tanh_": nn.Tanh}
_ASSIGNMENTS = {operator.setitem, operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.imatmul}


def activation_of(node: fx.Node, modules: dict[str, nn.Module]) -> nn.Module | None:
    """Return the activation that a graph node applies, as a module without side effects.

    Args:
        node: any node of a captured graph.
        modules: the graph module's submodules by name.

    Returns:
        A new module such as `nn.GELU(approximate="tanh")`, or None when the node is not a known activation.

    Example:
        >>> activation_of(node, dict(gm.named_modules()))   # for the node  F.gelu(fc1)
        GELU(approximate='none')
    """
    if node.op == "call_module":
        module = modules[str(node.target)]
        kind = type(module) if type(module) in LIPSCHITZ and not has_hooks(module) else None
        approximate = getattr(module, "approximate", "none")
    else:
        table = _FUNCTIONS if node.op == "call_function" else _METHODS if node.op == "call_method" else {}
        kind = table.get(node.target)
        approximate = node.args[1] if len(node.args) > 1 else node.kwargs.get("approximate", "none")
    if kind is None:
        return None
    return nn.GELU(approximate=str(approximate)) if kind is nn.GELU else kind()


def has_hooks(module: nn.Module) -> bool:
    """Return whether calling a module does more than its forward."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def is_transparent(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Return whether a node hands its input on unchanged: Identity, and Dropout in eval mode."""
    if node.op == "call_module":
        module = modules[str(node.target)]
        return type(module) in (nn.Identity, nn.Dropout) and not module.training and not has_hooks(module)
    if node.op == "call_function" and node.target in (F.dropout, aten.dropout):
        name = "training" if node.target is F.dropout else "train"
        training = node.kwargs.get(name, node.args[2] if len(node.args) > 2 else True)
        return training is False
    return False


def is_in_place(node: fx.Node) -> bool:
    """Return whether a function or method may write into a tensor that it is given."""
    if node.op not in ("call_function", "call_method"):
        return False
    name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", "")
    if name.endswith("_") and not name.endswith("__"):
        return True
    given = node.kwargs.get("inplace") is True or "out" in node.kwargs
    return given or node.target in _ASSIGNMENTS or _is_custom_write(node.target)


def _is_custom_write(target: object) -> bool:
    """Return whether an operation from outside torch says that it writes: aten's end in an underscore."""
    if not isinstance(target, torch._ops.OpOverloadPacket) or str(target).startswith("aten."):
        return False
    return any(getattr(target, name)._schema.is_mutable for name in target.overloads())
