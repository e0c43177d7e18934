"""Measuring: how far outputs are from the original's, how often decisions agree, and what was executed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dendrofx.inputs import Inputs, by_sample

EPS = 1e-12
Counts = dict[str, dict[str, int]]


def deviation(reference: Tensor, output: Tensor) -> Tensor:
    """Relative L2 distance of each sample's flattened output from the original's.

    Args:
        reference: f32[N, features], the original model's.
        output: f32[N, features].

    Returns:
        f64[N], `||y - y_ref|| / max(||y_ref||, 1e-12)`; infinity where the output is not finite and the reference is.

    Example:
        >>> deviation(torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 4.5]]))
        tensor([0.1000], dtype=torch.float64)
    """
    a, b = reference.double(), output.double()
    same = (a == b) | (a.isnan() & b.isnan())  # equal infinities do not differ
    distance = torch.where(same, 0.0, b - a).norm(dim=1)
    relative = distance / torch.where(a.isfinite(), a, 0.0).norm(dim=1).clamp_min(EPS)
    far: Tensor = relative.nan_to_num(nan=torch.inf, posinf=torch.inf)
    return far


def agreement(reference: Tensor, output: Tensor) -> float:
    """Share of samples whose largest output (the decision of a classifier) is the same, f32[N, classes]."""
    return float((reference.argmax(1) == output.argmax(1)).double().mean()) if len(reference) else 1.0


@torch.no_grad()
def outputs(module: nn.Module, batches: Sequence[Inputs]) -> Tensor:
    """The module's outputs over batches, one row per sample."""
    return torch.cat([by_sample(b.call(module), b.samples) for b in batches])


@torch.no_grad()
def counted_outputs(module: Any, batches: Sequence[Inputs]) -> tuple[Tensor, Counts]:  # noqa: ANN401
    """Outputs and summed counts of a module with `forward_counted`, eager or scripted."""
    parts, total = [], Counts()
    for batch in batches:
        output, counts = module.forward_counted(*batch.args, **dict(batch.kwargs))
        parts.append(by_sample(output, batch.samples))
        for site, values in counts.items():
            into = total.setdefault(site, dict.fromkeys(values, 0))
            for key, value in values.items():
                into[key] += value
    return torch.cat(parts), total


@torch.no_grad()
def model_macs(module: nn.Module, batches: Sequence[Inputs]) -> int:
    """Linear, matmul, attention and convolution multiply-adds of an eager module over batches, as dispatched by torch."""
    counter = FlopCounterMode(display=False)
    with counter:
        for batch in batches:
            batch.call(module)
    return int(counter.get_total_flops()) // 2


def site_activity(counts: Mapping[str, int]) -> float:
    """Share of one site's rows that took the full branch."""
    return counts["hard_rows"] / max(counts["rows"], 1)


def site_compute(counts: Mapping[str, int]) -> float:
    """One site's effective compute: executed multiply-adds, weighted by bits / 32, padding included, over its block's."""
    return (counts["gate_work"] + counts["light_work"] + counts["full_work"]) / max(counts["original_macs"], 1)


def activity(counts: Mapping[str, Mapping[str, int]]) -> float:
    """Over sites: MACs of rows that took the full branch over MACs of all rows, in the original block's MACs."""
    rows = sum(c["original_macs"] for c in counts.values())
    hard = sum(c["original_macs"] * site_activity(c) for c in counts.values())
    return hard / rows if rows else 1.0


def executed_macs(counts: Mapping[str, Mapping[str, int]], original: int) -> int:
    """Multiply-adds of the routed model: the original's, less the routed blocks', plus gate, light and full as executed."""
    return _executed(counts, original, "macs")


def executed_work(counts: Mapping[str, Mapping[str, int]], original: int) -> int:
    """The same, each multiply-add weighted by the bits of its widest operand over 32."""
    return _executed(counts, original, "work")


def _executed(counts: Mapping[str, Mapping[str, int]], original: int, unit: str) -> int:
    parts = [f"{branch}_{unit}" for branch in ("gate", "light", "full")]
    return original + sum(sum(c[part] for part in parts) - c["original_macs"] for c in counts.values())
