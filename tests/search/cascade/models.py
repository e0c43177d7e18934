"""Models with decisions, of several forms of inputs and outputs, and samples for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.models import compressible

WIDTH = 64


class Named(nn.Module):
    """Two inputs, one of which all samples share; a dict of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = compressible(WIDTH, 256, 6, noise=0.05)

    def forward(self, x: Tensor, scale: Tensor) -> dict[str, Tensor]:
        logits = self.mlp(x * scale)
        return {"hidden": x.abs().mean(1, keepdim=True), "logits": logits}


class Binary(nn.Module):
    """One logit per sample."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = compressible(WIDTH, 256, 1, noise=0.05)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x).squeeze(1)  # type: ignore[no-any-return]


class Pooled(nn.Module):
    """Tokens with a mask, pooled: f32[batch, tokens, 64] and [batch, tokens] to logits."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mlp = nn.LayerNorm(WIDTH), compressible(WIDTH, 256, WIDTH, noise=0.05)
        self.head = compressible(WIDTH, 128, 5, noise=0.0)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        rows = x + self.mlp(self.norm(x))
        live = mask.unsqueeze(-1).to(x.dtype)
        return self.head((rows * live).sum(1) / live.sum(1).clamp_min(1.0))  # type: ignore[no-any-return]


class Mixing(nn.Module):
    """Samples that read each other."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = compressible(WIDTH, 256, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.mlp(x)
        return y - y.mean(0)  # type: ignore[no-any-return]


def classifier(noise: float = 0.05) -> nn.Module:
    """f32[N, 64] -> f32[N, 5]."""
    return compressible(WIDTH, 256, 5, noise=noise).eval()


def rows(count: int, seed: int = 0) -> Tensor:
    """f32[N, 64]."""
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))


def batches(count: int = 20, size: int = 50, seed: int = 0) -> list[Tensor]:
    """Calibration for `classifier`."""
    return list(rows(count * size, seed).split(size))


def named(batch: Tensor) -> dict[str, Any]:
    """For `Named`."""
    return {"x": batch, "scale": torch.full([WIDTH], 1.5)}


def padded(count: int, seed: int = 0, tokens: int = 7) -> dict[str, Tensor]:
    """For `Pooled`."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, tokens + 1, (count,), generator=generator)
    lengths[0] = tokens
    x = torch.randn(count, tokens, WIDTH, generator=generator)
    return {"x": x, "mask": (torch.arange(tokens) < lengths[:, None]).long()}
