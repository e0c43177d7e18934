"""`Timer`: what a decision may ask about time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from torch import Tensor, nn

from dendrofx.machine.race import Race
from dendrofx.search.choose import Candidate
from dendrofx.search.cost import SiteTimes
from dendrofx.values.inputs import Inputs

Part = tuple[str, ...]


def interruptible(timer: Timer | None) -> AbstractContextManager[object]:
    """Return what Ctrl-C ends instead of the program, where there is a timer."""
    return nullcontext() if timer is None else timer.interruptible()


class Timer(Protocol):
    """What times for a decision: a `Profiler`, or recorded times."""

    notes: list[str]

    @property
    def expired(self) -> bool:
        """Whether no more parts should be timed."""

    def ran_out(self, left_out: str) -> None:
        """Note, for the plan, what was not timed because time was up."""

    def site(
        self, make: str, rows: Tensor, candidates: Sequence[Candidate], fulls: Mapping[str, nn.Module]
    ) -> SiteTimes:
        """Times of one site's parts at `len(rows)` rows per call."""

    def calls(self, calls: Mapping[Part, tuple[nn.Module, Sequence[Inputs]]]) -> dict[Part, float]:
        """Median ms of calls of whole models, each on batches that take turns."""

    def models(self, captured: nn.Module, routed: nn.Module, batches: Sequence[Inputs]) -> Race:
        """Race the whole models against each other: `scripted`, `scripted again` and `routed`."""

    def interruptible(self) -> AbstractContextManager[object]:
        """Return a context that ends, instead of the program, on Ctrl-C; from then on time is up."""
