"""A synthetic MLP of any width and depth whose rows differ in difficulty by construction.

Weights have a spectrum that falls off as a power, and four rows of five lie near a subspace of 1/128 of the dimensions;
the fifth is spread over all of them. Nothing about it is learned or real: it shows what routing does where rows differ.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.cases.options import CaseOptions
from dendrofx.compare.case import Case
from dendrofx.compare.samples import Rows
from dendrofx.errors import InputError

EASY_SHARE = 0.8
DECAY = 1.2


def wide(options: CaseOptions) -> Case:
    """`depth` hidden ReLU layers of `width`, `width` inputs and 16 outputs."""
    width, depth = options.wide(1024), options.deep(3)
    if width < 32 or depth < 1:
        raise InputError(f"--width must be >= 32 and --depth >= 1, got {width} and {depth}")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the same weights to the last bit, whatever --threads says
    try:
        return _wide(options, width, depth)
    finally:
        torch.set_num_threads(threads)


def _wide(options: CaseOptions, width: int, depth: int) -> Case:
    generator = torch.Generator().manual_seed(options.seed)
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [_linear(width, width, generator), nn.ReLU()]
    layers.append(_linear(width, 16, generator))
    rows = _rows(800 if options.quick else 3000, width, generator)
    cut = len(rows) * 2 // 3
    title = f"synthetic ReLU MLP, {depth} hidden layers of {width}, synthetic rows of two kinds"
    model = nn.Sequential(*layers).eval()
    return Case("wide", title, model, [rows[:cut]], Rows(rows[cut:]), classes=True, synthetic=True)


def _linear(fan_in: int, fan_out: int, generator: torch.Generator) -> nn.Linear:
    weight = torch.randn(fan_out, fan_in, generator=generator)
    u, s, v = torch.linalg.svd(weight, full_matrices=False)
    s = torch.arange(1, len(s) + 1, dtype=weight.dtype).pow(-DECAY)
    linear = nn.Linear(fan_in, fan_out)
    with torch.no_grad():
        scaled = u @ torch.diag(s) @ v
        linear.weight.copy_(scaled * (2 * fan_out) ** 0.5 / scaled.norm())
        linear.bias.copy_(0.01 * torch.randn(fan_out, generator=generator))
    return linear


def _rows(count: int, width: int, generator: torch.Generator) -> Tensor:
    base = torch.linalg.qr(torch.randn(width, max(width // 128, 2), generator=generator)).Q
    near = torch.randn(count, base.size(1), generator=generator) @ base.t() * (width / base.size(1)) ** 0.5
    near = near + 0.005 * torch.randn(count, width, generator=generator)
    spread = torch.randn(count, width, generator=generator)
    easy = torch.rand(count, 1, generator=generator) < EASY_SHARE
    return torch.where(easy, near, spread)
