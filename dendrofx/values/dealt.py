"""A dataset that is too large for this process: samples of it, dealt to a calibration's sets, and what is asked of all of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

from torch import fx

from dendrofx.statistics.moments import Moments
from dendrofx.statistics.quantiles import ScoreCounts
from dendrofx.values.inputs import Inputs


class Statistics(Protocol):
    """What is asked of all samples of a dataset; each answer is one pass over it."""

    def moments(self, gm: fx.GraphModule, sites: Mapping[str, tuple[str, ...]]) -> Mapping[str, tuple[Moments, ...]]:
        """Return the moments of what the Linears of each site take in, on the fitting samples; sites by name, with their nodes."""

    def scores(self, gm: fx.GraphModule) -> Mapping[str, ScoreCounts]:
        """Return the counts of each routed site's scores, on the choosing samples."""


@dataclass(frozen=True)
class Dealt:
    """Samples of a dataset, dealt to the sets already.

    Attributes:
        sets: of batches: fit, gate, choose, tune and, with a budget to certify, test.
        fitted: how many fitting samples the dataset has, which statistics are of.
        fingerprint: of the whole dataset.
        statistics: of the whole dataset.
    """

    sets: tuple[list[Inputs], ...]
    fitted: int
    fingerprint: str
    statistics: Statistics

    def __iter__(self) -> Iterator[Inputs]:
        return chain.from_iterable(self.sets)
