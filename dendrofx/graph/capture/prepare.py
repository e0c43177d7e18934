"""Copies of the model for capture, and changes to them: modules that are Linears in another dress, weights that are computed."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.utils import parametrize, prune

from dendrofx.errors import CaptureError
from dendrofx.graph.show import first_line
from dendrofx.machine.memory import shareable

Model = TypeVar("Model", bound=nn.Module)


def copy_of(model: Model) -> Model:
    """Return a copy whose parameters need no gradients and share the model's memory, until `memory.part` makes them its own.

    Raises:
        CaptureError: the model holds something that cannot be copied; names the attribute.
    """
    return _copied(
        model, [(p, nn.Parameter(p.detach(), requires_grad=False)) for p in shareable(model)]
    ).requires_grad_(False)


def stand_in(model: Model) -> Model:
    """Return a copy that has the model's very parameters, and everything else for its own: to run instead of the model.

    What its forward changes (a buffer, a counter) changes in the copy.

    Raises:
        CaptureError: the model holds something that cannot be copied; names the attribute.
    """
    return _copied(model, [(p, p) for p in model.parameters()])


def _copied(model: Model, instead: Iterable[tuple[nn.Parameter, nn.Parameter]]) -> Model:
    """Return a deep copy with other parameters in place of some."""
    try:
        return copy.deepcopy(model, {id(old): new for old, new in instead})  # what its memo holds is not copied
    except Exception as error:
        raise CaptureError(f"{type(model).__name__} cannot be copied: {_uncopied(model, error)}") from error


def _uncopied(model: nn.Module, error: Exception) -> str:
    """Return the attribute that cannot be copied, and what to do about it."""
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if key.startswith("_") and key in vars(nn.Module()):
                continue
            try:
                copy.deepcopy(value)
            except Exception as why:
                path = f"{name}.{key}".lstrip(".")
                return (
                    f"its attribute '{path}', a {type(value).__name__}, cannot: {first_line(why)}. Set it to None while the model"
                    " is transformed"
                )
    return first_line(error)


def unwrapped(model: Any) -> tuple[Any, str]:  # noqa: ANN401  (checked by `check_model`)
    """Take off what a model is wrapped in: `torch.compile`, `DataParallel`, `DistributedDataParallel`.

    Returns:
        The model inside, and what was taken off, from the outside; empty where nothing was.
    """
    off: list[str] = []
    while isinstance(model, nn.Module):
        kind = type(model).__name__
        inner = "_orig_mod" if kind == "OptimizedModule" else "module" if kind in _PARALLEL else None
        if inner is None or not isinstance(inside := getattr(model, inner), nn.Module):
            break
        off.append("torch.compile" if kind == "OptimizedModule" else kind)
        model = inside
    return model, ", ".join(off)


_PARALLEL = ("DataParallel", "DistributedDataParallel", "FullyShardedDataParallel")


@torch.no_grad()
def prepare(model: nn.Module) -> str:
    """Replace Hugging Face's `Conv1D`, a Linear with its weight transposed, by `nn.Linear`, and computed weights by their values.

    Args:
        model: a copy; changed in place. Weight norm, spectral norm, pruning and parametrizations end in a weight that is the
            same in every call, and TorchScript cannot take the machinery that computes it.

    Returns:
        What was replaced, for the reason why outputs may differ in their last bits; empty when nothing was.
    """
    replaced: dict[int, nn.Linear] = {}
    count = 0
    for parent in list(model.modules()):
        _fold(parent)
        for name, child in list(parent._modules.items()):  # named_children leaves out the second place of a shared one
            if child is not None and _is_conv1d(child):
                if id(child) not in replaced:
                    replaced[id(child)] = _as_linear(child)
                setattr(parent, name, replaced[id(child)])
                count += 1
    return f"{count} Conv1D became Linears, which sum in another order" if count else ""


def _fold(module: nn.Module) -> None:
    """Make computed weights of a module parameters with their values."""
    if parametrize.is_parametrized(module):
        values = {str(name): getattr(module, str(name)) for name in module.parametrizations}  # type: ignore[union-attr]
        # torch's own way out changes the class, which copies share with the caller's module
        module.__class__ = parametrize.type_before_parametrizations(module)
        del module.parametrizations
        for name, value in values.items():
            _computed(module, name, value, ())
    hooks: list[Any] = list(module._forward_pre_hooks.values())
    for hook in hooks:
        if isinstance(hook, prune.BasePruningMethod):
            prune.remove(module, hook._tensor_name)
        elif type(hook).__name__ == "WeightNorm" and hasattr(hook, "compute_weight"):
            _computed(module, hook.name, hook.compute_weight(module), (f"{hook.name}_g", f"{hook.name}_v"))
        elif type(hook).__name__ == "SpectralNorm" and hasattr(hook, "compute_weight"):
            weight = hook.compute_weight(module, do_power_iteration=False)
            _computed(module, hook.name, weight, (f"{hook.name}_orig", f"{hook.name}_u", f"{hook.name}_v"))
        else:
            continue
    module._forward_pre_hooks = type(module._forward_pre_hooks)(
        (k, h) for k, h in module._forward_pre_hooks.items() if type(h).__name__ not in ("WeightNorm", "SpectralNorm")
    )


def _computed(module: nn.Module, name: str, weight: torch.Tensor, parts: tuple[str, ...]) -> None:
    """Make a weight that a hook computes the parameter that it stands for."""
    for part in (name, *parts):
        if hasattr(module, part):
            delattr(module, part)
    module.register_parameter(name, nn.Parameter(weight.detach().clone(), requires_grad=False))


def _is_conv1d(module: nn.Module) -> bool:
    return type(module).__name__ == "Conv1D" and type(module).__module__.startswith("transformers.")


def _as_linear(conv: nn.Module) -> nn.Linear:
    weight = conv.get_parameter("weight")
    linear = nn.Linear(weight.size(0), weight.size(1))
    linear.weight.copy_(weight.t())
    linear.bias.copy_(conv.get_parameter("bias"))
    return linear.requires_grad_(False).eval()
