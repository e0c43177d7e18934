"""The run time of an exit: the head that predicts the model's outputs from the value at a cut, and what counts it."""

from typing import Dict

import torch
from torch import Tensor, nn


def pooled(value: Tensor, kind: str) -> Tensor:
    """Map the value at a cut to features, f32[N, features].

    Args:
        value: [N, ...].
        kind: "flat": all numbers of a sample. "tokens", of [N, tokens, d]: their mean and the first token. "channels", of
            [N, channels, ...]: the mean of each channel.
    """
    if kind == "tokens":
        return torch.cat([value.mean(1), value.select(1, 0)], 1)
    if kind == "channels":
        return value.flatten(2).mean(2)
    return value if value.dim() == 2 else value.flatten(1)


class ExitHead(nn.Module):
    """One product: features to all outputs of the model; standardising the features is folded into its weights.

    Args:
        kind: see `pooled`.
        weight: f32[numbers of all outputs, features].
        bias: f32[numbers of all outputs].
        shapes: of each output's sample.
        work: multiply-adds of one sample in the whole model, and of them before the cut.
    """

    def __init__(self, kind: str, weight: Tensor, bias: Tensor, shapes: list[list[int]], work: tuple[int, int]) -> None:
        super().__init__()
        self.kind = kind
        self.linear = nn.Linear(weight.size(1), weight.size(0))
        self.linear.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
        self.linear.bias = nn.Parameter(bias, requires_grad=False)
        self.shapes = shapes
        self.sizes = [max(int(torch.tensor(s).prod()), 1) for s in shapes]
        self.work = work

    @property
    def macs(self) -> int:
        """Multiply-adds per sample."""
        return int(self.linear.weight.numel())

    def forward(self, value: Tensor) -> list[Tensor]:
        """Map the value at the cut, [N, ...], to the model's outputs, [N, ...] each."""
        flat = self.linear(pooled(value, self.kind))
        if len(self.shapes) == 1 and len(self.shapes[0]) == 1:
            return [flat]
        found: list[Tensor] = []
        for part, shape in zip(flat.split(self.sizes, 1), self.shapes):
            found.append(part.reshape([flat.size(0)] + shape))
        return found


def count_exit(cut: Tensor, head_macs: int, spared_macs: int) -> Dict[str, int]:
    """Count what one call left out: up to an exit the rest, for a head; behind it, what was computed before.

    Args:
        cut: [N, ...], the value at the cut.
        head_macs: multiply-adds of the head, per sample; 0 behind the exit.
        spared_macs: of what is left out.
    """
    rows = cut.size(0)
    return {"rows": rows, "executed_macs": rows * head_macs, "original_macs": rows * spared_macs}
