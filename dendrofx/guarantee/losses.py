"""A module's losses on batches, in the metric of a budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from dendrofx.drop_in import graph_level
from dendrofx.guarantee.budget import Budget
from dendrofx.inputs import Inputs
from dendrofx.measure import Counts, add_counts


@torch.no_grad()
def reference_picks(
    original: fx.GraphModule, captured: fx.GraphModule, batches: Sequence[Inputs], budget: Budget
) -> list[Tensor]:
    """Per batch what the original gives; of outputs per token, where dead rows are dropped, what it gives on live rows.

    Args:
        original: with all rows.
        captured: the same on live rows, or the original itself.
        batches: samples.
        budget: says which output.
    """
    found = []
    for batch in batches:
        picked = budget.pick(batch.call(graph_level(original)), batch.samples)
        if picked.dim() > 2 and captured is not original:
            picked = budget.pick(batch.call(graph_level(captured)), batch.samples)
        found.append(picked)
    return found


@torch.no_grad()
def counted_losses(
    module: Any,  # noqa: ANN401  (eager or scripted, with forward_counted)
    batches: Sequence[Inputs],
    references: Sequence[Tensor],
    budget: Budget,
) -> tuple[Tensor, Counts]:
    """f64[N] losses of all samples, and what was executed for them."""
    losses, total = [], Counts()
    for batch, reference in zip(batches, references, strict=True):
        output, counts = batch.call(graph_level(module, "forward_counted"))
        losses.append(budget.losses(reference, budget.pick(output, batch.samples)))
        add_counts(total, counts)
    return torch.cat(losses), total
