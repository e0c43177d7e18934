"""A module's losses on batches, in the metric of a budget: each covered output on its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from dendrofx.guarantee.budget import Budget
from dendrofx.guarantee.metrics import relative_distance
from dendrofx.values.counts import Counts, add_counts
from dendrofx.values.covered import Covered
from dendrofx.values.drop_in import graph_level
from dendrofx.values.inputs import Inputs


@dataclass(frozen=True)
class Seen:
    """What a module did on samples.

    Attributes:
        losses: f64[N, outputs], in the terms of the budget.
        counts: what was executed.
        far: f64[N, outputs], the deviations; None where they were not looked for.
    """

    losses: Tensor
    counts: Counts
    far: Tensor | None = None

    @property
    def largest(self) -> float | None:
        """The largest deviation of a sample, in any output that is covered; None where it was not looked for."""
        return None if self.far is None else float(self.far.max())

    def within(self, most: float | None) -> bool:
        """Return whether no sample deviates by more than `most`; None allows any."""
        return most is None or (self.largest is not None and self.largest <= most)


@torch.no_grad()
def reference_picks(
    original: fx.GraphModule, captured: fx.GraphModule, batches: Sequence[Inputs], covered: Covered
) -> list[list[Tensor]]:
    """Return the covered outputs of the original, per batch; where dead rows are dropped, those per token are what live rows give.

    Args:
        original: with all rows.
        captured: the same on live rows, or the original itself.
        batches: samples.
        covered: which outputs.
    """
    found = []
    for batch in batches:
        picked = covered.pick(batch.call(graph_level(original)), batch.samples)
        if captured is not original and any(t.dim() > 2 for t in picked):
            live = covered.pick(batch.call(graph_level(captured)), batch.samples)
            picked = [b if b.dim() > 2 else a for a, b in zip(picked, live, strict=True)]
        found.append(picked)
    return found


@torch.no_grad()
def seen(
    module: Any,  # noqa: ANN401  (eager or scripted, with forward_counted)
    batches: Sequence[Inputs],
    references: Sequence[Sequence[Tensor]],
    budget: Budget,
    covered: Covered,
    tail: bool = False,
) -> Seen:
    """Return what a module does on batches; with `tail` also how far each sample deviates."""
    losses, far, total = [], [], Counts()
    for batch, reference in zip(batches, references, strict=True):
        output, counts = batch.call(graph_level(module, "forward_counted"))
        picked = covered.pick(output, batch.samples)
        losses.append(losses_of(budget, reference, picked))
        if tail:
            far.append(torch.stack([relative_distance(a, b) for a, b in zip(reference, picked, strict=True)], 1))
        add_counts(total, counts)
    return Seen(torch.cat(losses), total, torch.cat(far) if tail else None)


def losses_of(budget: Budget, references: Sequence[Tensor], outputs: Sequence[Tensor]) -> Tensor:
    """Return the losses, f64[N, outputs], of what was picked of a module's outputs against what was picked of the original's."""
    return torch.stack([budget.losses(a, b) for a, b in zip(references, outputs, strict=True)], 1)
