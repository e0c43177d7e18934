"""Copies of the model for capture, and changes to them: modules that are Linears in another dress."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

from dendrofx.errors import CaptureError
from dendrofx.memory import shareable
from dendrofx.show import first_line

Model = TypeVar("Model", bound=nn.Module)


def copy_of(model: Model) -> Model:
    """A copy whose parameters need no gradients and share the model's memory, until `memory.part` makes them its own.

    Raises:
        CaptureError: the model holds something that cannot be copied.
    """
    shared = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in shareable(model)}
    try:
        return copy.deepcopy(model, shared).requires_grad_(False)  # what its memo holds is not copied
    except Exception as error:
        raise CaptureError(f"{type(model).__name__} cannot be copied: {first_line(error)}") from error


@torch.no_grad()
def prepare(model: nn.Module) -> str:
    """Replace Hugging Face's `Conv1D`, a Linear with its weight transposed, by `nn.Linear`; in place.

    Returns:
        What was replaced, for the reason why outputs may differ in their last bits; empty when nothing was.
    """
    replaced: dict[int, nn.Linear] = {}
    count = 0
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):  # named_children leaves out the second place of a shared one
            if child is not None and _is_conv1d(child):
                if id(child) not in replaced:
                    replaced[id(child)] = _as_linear(child)
                setattr(parent, name, replaced[id(child)])
                count += 1
    return f"{count} Conv1D became Linears, which sum in another order" if count else ""


def _is_conv1d(module: nn.Module) -> bool:
    return type(module).__name__ == "Conv1D" and type(module).__module__.startswith("transformers.")


def _as_linear(conv: nn.Module) -> nn.Linear:
    weight = conv.get_parameter("weight")
    linear = nn.Linear(weight.size(0), weight.size(1))
    linear.weight.copy_(weight.t())
    linear.bias.copy_(conv.get_parameter("bias"))
    return linear.requires_grad_(False).eval()
