"""What a module computes on samples, beside its original: how far its outputs are off, and what was executed for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from dendrofx.values.counts import CASCADE, Counts, activity, executed_macs, executed_work, live_share, of_sites
from dendrofx.values.covered import Covered
from dendrofx.values.inputs import Inputs
from dendrofx.values.measure import counted_outputs, deviations, largest_mean, outputs


@dataclass(frozen=True)
class Quality:
    """What a variant computes on the test samples: shares of 1, and deviations per sample. What a peer executes is not known.

    Of several outputs that the budget is about, each figure is that of the output where it is largest.
    """

    activity: float | None
    live: float | None
    effective_compute: float | None
    plain_macs: float | None
    mean: float
    p99: float
    max: float
    agreement: float | None
    loss: float | None = None  # mean, in the metric of a certified budget
    output: str = ""  # where the mean deviation is largest; empty where there is one output
    far: Tensor | None = field(default=None, compare=False)  # f64[N, outputs], behind the figures
    counts: Counts = field(default_factory=dict)  # of rows and multiply-adds; empty where they were not counted

    def deviation(self) -> dict[str, float]:
        """For the JSON."""
        return {"mean": self.mean, "p99": self.p99, "max": self.max}

    @property
    def risk(self) -> float:
        """The mean loss that the budget is about: its own metric where one is certified, the deviation elsewhere."""
        return self.mean if self.loss is None else self.loss

    @property
    def by_site(self) -> Mapping[str, Mapping[str, int]]:
        """The counts of what is routed: of its sites, or of a cascade's samples."""
        return {CASCADE: self.counts[CASCADE]} if CASCADE in self.counts else of_sites(self.counts)

    @property
    def hard(self) -> int:
        """Rows that went full, over all sites."""
        return sum(c["hard_rows"] for c in self.by_site.values())

    @property
    def rows(self) -> int:
        """All of these rows."""
        return sum(c["rows"] for c in self.by_site.values())


@torch.no_grad()
def run(
    module: nn.Module, batches: Sequence[Inputs], covered: Covered, counted: bool
) -> tuple[list[Tensor], Counts | None]:
    """Return the covered outputs over batches, each f32[N, features], and what was executed where that is `counted`."""
    if counted:
        return counted_outputs(module, batches, covered)
    return outputs(module, batches, covered), None


def quality_of(
    reference: Sequence[Tensor],
    output: Sequence[Tensor],
    names: Sequence[str],
    counts: Counts | None = None,
    macs: int | None = None,
) -> Quality:
    """Return the quality of outputs.

    Args:
        reference: by output f32[N, features], the original's.
        output: the same, the module's.
        names: of these outputs.
        counts: what was executed; None where it was not counted.
        macs: the original's on the same samples; None where they are not known, and shares of them neither.
    """
    far = deviations(reference, output)
    counts = counts or {}
    routed = bool(of_sites(counts)) or CASCADE in counts
    return Quality(
        activity=activity(counts) if routed else None,
        live=live_share(counts),
        effective_compute=None if macs is None else executed_work(counts, macs) / macs,
        plain_macs=None if macs is None else executed_macs(counts, macs) / macs,
        mean=largest_mean(far),
        p99=float(far.quantile(0.99, dim=0).max()),
        max=float(far.max()),
        agreement=None,
        output=names[int(far.mean(0).argmax())] if len(names) > 1 else "",
        far=far,
        counts=counts,
    )
