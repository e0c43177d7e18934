"""Measuring: how far outputs are from the original's, how often decisions agree, and what was executed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dendrofx.rewriting.module import DEAD_ROWS
from dendrofx.values.covered import Covered, cover
from dendrofx.values.drop_in import graph_level
from dendrofx.values.inputs import Inputs
from dendrofx.values.outputs import flatten

EPS = 1e-12
Counts = dict[str, dict[str, int]]
# Among the counts, those of a cascade's samples.
CASCADE = "model"


def deviation(reference: Tensor, output: Tensor) -> Tensor:
    """Relative L2 distance of each sample's flattened output from the original's; of one output, see `deviations`.

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


def deviations(reference: Sequence[Tensor], output: Sequence[Tensor]) -> Tensor:
    """The deviation of each sample in each output, f64[N, outputs].

    Args:
        reference: by output f32[N, features], the original model's, such as `outputs` gives.
        output: the same, another's.
    """
    return torch.stack([deviation(a, b) for a, b in zip(reference, output, strict=True)], 1)


def worst(values: Tensor) -> Tensor:
    """Of f64[N, outputs] each sample's largest, f64[N]."""
    return values.amax(1)


def largest_mean(losses: Tensor) -> float:
    """The mean over samples of f64[N] losses; of f64[N, outputs] the largest of the outputs' means."""
    return float(losses.mean(0).max())


def agreement(reference: Tensor, output: Tensor) -> float:
    """Share of samples whose largest output (the decision of a classifier) is the same, f32[N, classes]."""
    return float((reference.argmax(1) == output.argmax(1)).double().mean()) if len(reference) else 1.0


@torch.no_grad()
def outputs(module: nn.Module, batches: Sequence[Inputs], covered: Covered | None = None) -> list[Tensor]:
    """The module's outputs over batches, each f32[N, features]; samples with fewer values (shorter sequences) end in zeros.

    Args:
        module: anything callable on the batches.
        batches: samples.
        covered: which outputs; by default every floating-point one.
    """
    return _stacked([_rows(b.call(graph_level(module)), b.samples, covered) for b in batches])


def _rows(output: Any, samples: int, covered: Covered | None) -> list[Tensor]:  # noqa: ANN401
    if covered is None:
        tensors, form = flatten(output)
        covered = cover(form.names, tensors)
    return covered.rows(output, samples)


def _stacked(parts: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """By output, the rows of all batches."""
    return [_padded(output) for output in zip(*parts, strict=True)]


def _padded(parts: Sequence[Tensor]) -> Tensor:
    width = max(p.size(1) for p in parts)
    return torch.cat([p if p.size(1) == width else F.pad(p, [0, width - p.size(1)]) for p in parts])


@torch.no_grad()
def counted_outputs(
    module: Any,  # noqa: ANN401  (eager or scripted)
    batches: Sequence[Inputs],
    covered: Covered | None = None,
) -> tuple[list[Tensor], Counts]:
    """Outputs, see `outputs`, and summed counts of a module with `forward_counted`."""
    parts, total = [], Counts()
    for batch in batches:
        output, counts = batch.call(graph_level(module, "forward_counted"))
        parts.append(_rows(output, batch.samples, covered))
        add_counts(total, counts)
    return _stacked(parts), total


@torch.no_grad()
def counted(module: Any, batches: Sequence[Inputs]) -> Counts:  # noqa: ANN401
    """Summed counts alone."""
    total = Counts()
    for batch in batches:
        add_counts(total, batch.call(module.forward_counted)[1])
    return total


def add_counts(total: Counts, counts: Mapping[str, Mapping[str, int]]) -> None:
    """Add one call's counts to a sum."""
    for site, values in counts.items():
        into = total.setdefault(site, dict.fromkeys(values, 0))
        for key, value in values.items():
            into[key] += value


# The fused attention of CPUs, which torch's own counter leaves out (2.13).
_CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def _attention_flops(q: Sequence[int], k: Sequence[int], v: Sequence[int], *_: Any, **__: Any) -> int:  # noqa: ANN401
    """Two products, of shapes [batch, heads, tokens, features]."""
    batch, heads, queries, width = q
    return 2 * batch * heads * queries * k[2] * (width + v[3])


@torch.no_grad()
def model_macs(module: nn.Module, batches: Sequence[Inputs]) -> int:
    """Linear, matmul, attention and convolution multiply-adds of an eager module over batches, as dispatched by torch."""
    counter = FlopCounterMode(display=False, custom_mapping={_CPU_ATTENTION: _attention_flops})
    with counter:
        for batch in batches:
            batch.call(module)
    return int(counter.get_total_flops()) // 2


def of_sites(counts: Mapping[str, Mapping[str, int]]) -> dict[str, Mapping[str, int]]:
    """The counts of routed sites alone."""
    return {name: c for name, c in counts.items() if "original_macs" in c and name != DEAD_ROWS}


def of_branch(counts: Mapping[str, Mapping[str, int]], branch: str) -> dict[str, Mapping[str, int]]:
    """Of a cascade's counts, those inside its light or its full model: `branch` is "light" or "full"."""
    return {n.removeprefix(f"{branch}/"): c for n, c in counts.items() if n.startswith(f"{branch}/")}


def live_share(counts: Mapping[str, Mapping[str, int]]) -> float | None:
    """Share of rows that are live, of a cascade in its light model, which all samples run; None where no rows are dropped."""
    counted = (of_branch(counts, "light") if CASCADE in counts else counts).get(DEAD_ROWS)
    return None if counted is None else counted["live_rows"] / max(counted["rows"], 1)


def site_activity(counts: Mapping[str, int]) -> float:
    """Share of one site's rows that took the full branch."""
    return counts["hard_rows"] / max(counts["rows"], 1)


def site_compute(counts: Mapping[str, int]) -> float:
    """One site's effective compute: executed multiply-adds, weighted by bits / 32, padding included, over its block's."""
    return (counts["gate_work"] + counts["light_work"] + counts["full_work"]) / max(counts["original_macs"], 1)


def activity(counts: Mapping[str, Mapping[str, int]]) -> float:
    """Over sites: MACs of rows that took the full branch over MACs of all rows, in the original block's MACs.

    Of a cascade it is the share of samples that were recomputed.
    """
    if CASCADE in counts:
        return site_activity(counts[CASCADE])
    sites = of_sites(counts).values()
    rows = sum(c["original_macs"] for c in sites)
    hard = sum(c["original_macs"] * site_activity(c) for c in sites)
    return hard / rows if rows else 1.0


def executed_macs(counts: Mapping[str, Mapping[str, int]], original: int) -> int:
    """Multiply-adds executed: the original's, less those of dead rows and of routed blocks, plus gate, light and full."""
    return _executed(counts, original, "macs")


def executed_work(counts: Mapping[str, Mapping[str, int]], original: int) -> int:
    """The same, each multiply-add weighted by the bits of its widest operand over 32."""
    return _executed(counts, original, "work")


def _executed(counts: Mapping[str, Mapping[str, int]], original: int, unit: str) -> int:
    if CASCADE in counts:
        # samples of one call have the same shapes, so a share of them takes that share of its multiply-adds
        full = round(original * site_activity(counts[CASCADE]))
        return _executed(of_branch(counts, "light"), original, unit) + _executed(of_branch(counts, "full"), full, unit)
    parts = [f"{branch}_{unit}" for branch in ("gate", "light", "full")]
    dead = counts.get(DEAD_ROWS, {"executed_macs": 0, "original_macs": 0})
    routed = sum(sum(c[part] for part in parts) - c["original_macs"] for c in of_sites(counts).values())
    return original + dead["executed_macs"] - dead["original_macs"] + routed
