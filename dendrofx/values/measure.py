"""Measuring: how far outputs are from the original's, how often decisions agree, and what was executed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dendrofx.values.counts import Counts, add_counts
from dendrofx.values.covered import Covered, cover
from dendrofx.values.drop_in import graph_level
from dendrofx.values.inputs import Inputs
from dendrofx.values.outputs import flatten

EPS = 1e-12


def deviation(reference: Tensor, output: Tensor) -> Tensor:
    """Return the relative L2 distance of each sample's flattened output from the original's; of one output, see `deviations`.

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
    """Return the deviation of each sample in each output, f64[N, outputs].

    Args:
        reference: by output f32[N, features], the original model's, such as `outputs` gives.
        output: the same, another's.
    """
    return torch.stack([deviation(a, b) for a, b in zip(reference, output, strict=True)], 1)


def worst(values: Tensor) -> Tensor:
    """Return each sample's largest of f64[N, outputs], f64[N]."""
    return values.amax(1)


def largest_mean(losses: Tensor) -> float:
    """Return the mean over samples of f64[N] losses; of f64[N, outputs] the largest of the outputs' means."""
    return float(losses.mean(0).max())


def agreement(reference: Tensor, output: Tensor) -> float:
    """Return the share of samples whose largest output (the decision of a classifier) is the same, f32[N, classes]."""
    return float((reference.argmax(1) == output.argmax(1)).double().mean()) if len(reference) else 1.0


@torch.no_grad()
def outputs(module: nn.Module, batches: Sequence[Inputs], covered: Covered | None = None) -> list[Tensor]:
    """Return the module's outputs over batches, each f32[N, features]; samples with fewer values (shorter sequences) end in zeros.

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
    """Join the rows of all batches, by output."""
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
    """Return outputs, see `outputs`, and summed counts of a module with `forward_counted`."""
    parts, total = [], Counts()
    for batch in batches:
        output, counts = batch.call(graph_level(module, "forward_counted"))
        parts.append(_rows(output, batch.samples, covered))
        add_counts(total, counts)
    return _stacked(parts), total


@torch.no_grad()
def counted(module: Any, batches: Sequence[Inputs]) -> Counts:  # noqa: ANN401
    """Return the summed counts alone."""
    total = Counts()
    for batch in batches:
        add_counts(total, batch.call(module.forward_counted)[1])
    return total


# Torch's own counter leaves out (2.13) the fused attention of CPUs,
_CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_ADDED_PRODUCT = torch.ops.aten.addmm_  # and the product that is added in place


def _attention_flops(q: Sequence[int], k: Sequence[int], v: Sequence[int], *_: Any, **__: Any) -> int:  # noqa: ANN401
    """Count two products, of shapes [batch, heads, tokens, features]."""
    batch, heads, queries, width = q
    return 2 * batch * heads * queries * k[2] * (width + v[3])


def _product_flops(_: Sequence[int], a: Sequence[int], b: Sequence[int], *__: Any, **___: Any) -> int:  # noqa: ANN401
    """Count a product of [rows, in] and [in, out]."""
    return 2 * a[0] * a[1] * b[1]


_LEFT_OUT = {_CPU_ATTENTION: _attention_flops, _ADDED_PRODUCT: _product_flops}


@torch.no_grad()
def model_macs(module: nn.Module, batches: Sequence[Inputs]) -> int:
    """Count linear, matmul, attention and convolution multiply-adds of an eager module over batches, as dispatched by torch.

    Of batches of the same shapes one is run: what is counted depends on shapes alone.
    """
    firsts = {_shapes(batch): batch for batch in reversed(batches)}
    macs = {shapes: _counted_call(module, batch)[1] for shapes, batch in firsts.items()}
    return sum(macs[_shapes(batch)] for batch in batches)


@torch.no_grad()
def outputs_and_macs(
    module: nn.Module, batches: Sequence[Inputs], covered: Covered | None = None
) -> tuple[list[Tensor], int]:
    """Return an eager module's outputs, see `outputs`, and its multiply-adds, see `model_macs`, for one call of each batch."""
    macs: dict[Shapes, int] = {}
    parts, total = [], 0
    for batch in batches:
        shapes = _shapes(batch)
        if shapes in macs:
            output = batch.call(graph_level(module))
        else:
            output, macs[shapes] = _counted_call(graph_level(module), batch)
        parts.append(_rows(output, batch.samples, covered))
        total += macs[shapes]
    return _stacked(parts), total


Shapes = tuple[torch.Size, ...]


def _shapes(batch: Inputs) -> Shapes:
    return tuple(t.shape for t in batch.tensors)


def _counted_call(module: Any, batch: Inputs) -> tuple[Any, int]:  # noqa: ANN401
    """Return a call's output, which counting does not change, and its multiply-adds."""
    counter = FlopCounterMode(display=False, custom_mapping=_LEFT_OUT)
    with counter:
        output = batch.call(module)
    return output, int(counter.get_total_flops()) // 2
