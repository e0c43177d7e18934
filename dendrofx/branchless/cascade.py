"""The leaf of a cascade without branches; see `runtime/cascade.py`."""

from __future__ import annotations

import torch
from torch import Tensor

from dendrofx.runtime import cascade
from dendrofx.runtime.routing import Split


class FullOnDoubtful(cascade.FullOnDoubtful):
    """Runs the original on the samples in doubt.

    Attributes:
        takes_none: whether the original runs on no samples at all. Where it does not, it is given the first sample instead, and
            what it makes of it is discarded.
    """

    takes_none: bool = True

    def forward(self, inputs: list[Tensor], light: list[Tensor], split: Split) -> list[Tensor]:
        """Return the model's outputs."""
        index = split.hard if self.takes_none else self.one_at_least(split)
        full = self.full(self.take(self.given(inputs, light), index))
        made = self.put(light, full, index)
        if self.takes_none:
            return made
        some = index.new_ones(split.rows).index_fill(0, split.hard, 0).sum() < split.rows
        return [torch.where(some, y, x) for x, y in zip(light, made, strict=False)]

    def one_at_least(self, split: Split) -> Tensor:
        """Return the samples in doubt; of none of them the first sample."""
        doubtful = torch.zeros([split.rows], dtype=torch.bool).index_fill(0, split.hard, True)
        first = torch.arange(split.rows).eq(0).logical_and(doubtful.any().logical_not())
        found = doubtful.logical_or(first).nonzero().squeeze(1)
        torch._check(found.size(0) >= 1, lambda: "a batch without samples")
        return found
