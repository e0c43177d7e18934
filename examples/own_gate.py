"""A gate of one's own: digits whose light answer is undecided run the original again.

    python examples/own_gate.py

A gate is any module that maps what it reads to one float per row, larger where the row is in more doubt.
"""

from __future__ import annotations

import torch
from digits import load  # the example beside this one
from torch import Tensor, nn

import dendrofx


class Entropy(nn.Module):
    """How undecided the light model's logits are."""

    def forward(self, logits: Tensor) -> Tensor:
        """f32[N, 10] -> f32[N]: each value from its own row alone, whatever its unit."""
        p = logits.softmax(1)
        return -(p * p.clamp(min=1e-9).log()).sum(1)


if __name__ == "__main__":
    model, calibration, test = load()
    cascade = dendrofx.transform(
        model,
        calibration=calibration.split(60),
        budget=dendrofx.Budget("flip", limit=0.02, confidence=0.95),  # at most 2 % of the decisions change, at 95 %
        scope="model",  # whole samples are routed
        light=dendrofx.LowRank(rank=10, basis="whitened"),
        gate=Entropy(),
        batch_sizes=[256],
    )
    print(cascade.plan)

    got, counts = cascade.forward_counted(test)
    same = (got.argmax(1) == model(test).argmax(1)).float().mean()
    again = int(counts["model"]["hard_rows"]) if "model" in counts else len(test)  # refused: the original runs
    print(f"{again} of {len(test)} digits ran the original, {same:.1%} have its answer")
    torch.jit.save(dendrofx.script(cascade), "cascade.pt")  # the gate inside
