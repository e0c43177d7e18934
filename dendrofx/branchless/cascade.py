"""The leaf of a cascade without branches; see `runtime/cascade.py`."""

from __future__ import annotations

from typing import Any

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
        index = self.index(split)
        return self.placed(light, self.full(self.take(self.given(inputs, light), index)), split, index)

    def index(self, split: Split) -> Tensor:
        """Return the samples that the original is given."""
        return split.hard if self.takes_none else self.one_at_least(split)

    def placed(self, light: list[Tensor], full: list[Tensor], split: Split, index: Tensor) -> list[Tensor]:
        """Return the model's outputs, of what the original made of some samples."""
        made = self.put(light, full, index)
        if self.takes_none:
            return made
        some = self.some(split)
        return [torch.where(some, y, x) for x, y in zip(light, made, strict=False)]

    def some(self, split: Split) -> Tensor:
        """Tell whether any sample is in doubt, bool[]."""
        return split.hard.new_ones(split.rows).index_fill(0, split.hard, 0).sum() < split.rows

    def one_at_least(self, split: Split) -> Tensor:
        """Return the samples in doubt; of none of them the first sample."""
        doubtful = torch.zeros([split.rows], dtype=torch.bool).index_fill(0, split.hard, True)
        first = torch.arange(split.rows).eq(0).logical_and(doubtful.any().logical_not())
        found = doubtful.logical_or(first).nonzero().squeeze(1)
        torch._check(found.size(0) >= 1, lambda: "a batch without samples")
        return found


class CountedFullOnDoubtful(FullOnDoubtful):
    """The same, whose original gives its counts beside its outputs."""

    def forward(self, inputs: list[Tensor], light: list[Tensor], split: Split) -> Any:  # noqa: ANN401
        """Return the model's outputs, and `{site: f64[4]}` of the original; see `routes.count_split`."""
        index = self.index(split)
        full, counts = self.full(self.take(self.given(inputs, light), index))
        if not self.takes_none:  # what the sample that is discarded did is no count
            counts = {site: values * self.some(split).to(values.dtype) for site, values in counts.items()}
        return self.placed(light, full, split, index), counts
