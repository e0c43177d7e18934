"""Changes to a copy of the model before it is captured: modules that are Linears in another dress."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def prepare(model: nn.Module) -> str:
    """Replace Hugging Face's `Conv1D`, a Linear with its weight transposed, by `nn.Linear`; in place.

    Returns:
        What was replaced, for the reason why outputs may differ in their last bits; empty when nothing was.
    """
    replaced: dict[int, nn.Linear] = {}
    count = 0
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__ == "Conv1D" and type(child).__module__.startswith("transformers."):
                if id(child) not in replaced:
                    replaced[id(child)] = _as_linear(child)
                setattr(parent, name, replaced[id(child)])
                count += 1
    return f"{count} Conv1D became Linears, which sum in another order" if count else ""


def _as_linear(conv: nn.Module) -> nn.Linear:
    weight = conv.get_parameter("weight")
    linear = nn.Linear(weight.size(0), weight.size(1))
    linear.weight.copy_(weight.t())
    linear.bias.copy_(conv.get_parameter("bias"))
    return linear.requires_grad_(False).eval()
