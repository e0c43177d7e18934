"""The figures of a race of a rewritten model against the original, and how many threads they say that a worker should have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dendrofx.machine.pace import Pace


@dataclass(frozen=True)
class ModelTimes:
    """What one race of the rewritten model against the original took.

    Attributes:
        batch: samples per call.
        scripted_ms: median of the original's calls, the better of its two entries.
        routed_ms: median of the rewritten model's.
        noise: how far the original was off against itself.
        noisy: what else says that the machine was disturbed, in words; empty where nothing does.
        doubt, quickest, cpu, threads: whether to believe these times, and what else there is to decide on; see `Pace`.
        scripted_alone_ms, routed_alone_ms: CPU time of a call on one thread; None where that was not taken.
    """

    batch: int
    scripted_ms: float
    routed_ms: float
    noise: float
    noisy: str = ""
    doubt: str = ""
    quickest: float | None = None
    cpu: float | None = None
    threads: int = 1
    scripted_alone_ms: float | None = None
    routed_alone_ms: float | None = None

    @property
    def pace(self) -> Pace:
        """How many times as fast the rewritten model is, by each estimate."""
        return Pace(self.scripted_ms / self.routed_ms, self.doubt, self.quickest, self.cpu, self.threads)

    @property
    def speedup(self) -> float:
        """The original's median over the rewritten model's; where these are doubtful, the least of what is not."""
        return self.pace.ratio

    def wins(self, min_speedup: float) -> bool:
        """Return whether the gain can be relied on and reaches `min_speedup`, and beyond the noise where that is larger."""
        return self.pace.reliable and self.speedup >= max(min_speedup, 1 + self.noise)

    def reason(self, min_speedup: float) -> str:
        """Say why it did not win, with the figures."""
        figure = str(self.pace) if self.doubt else f"{self.scripted_ms:.3g} ms"
        pace = f"{self.speedup:.2f} x the scripted original at batch {self.batch} ({figure})"
        if self.speedup >= min_speedup:
            return f"{pace}, within the {100 * self.noise:.0f} % that the original differed from itself"
        return f"{pace}, min_speedup is {min_speedup:g}"


@dataclass(frozen=True)
class ThreadsPlan:
    """How many threads a worker should have.

    Attributes:
        own: on a machine of its own, the count at which a call is shortest.
        shared: beside other workers: one, for a call on several waits at every parallel region until they all have a core.
        own_speedup, shared_speedup: over the scripted original on as many threads.
        batch: samples per call of the race that says so.
    """

    own: int
    shared: int
    own_speedup: float
    shared_speedup: float
    batch: int

    def __str__(self) -> str:
        alone = f"{self.shared_speedup:.2f} x on one thread"
        if self.own == self.shared:
            return f"threads: 1, on a machine of its own too, where more do not make a call shorter ({alone})"
        return f"threads: {self.own} on a machine of its own ({self.own_speedup:.2f} x), 1 beside others ({alone})"


def threads_plan(times: Sequence[ModelTimes], min_speedup: float) -> ThreadsPlan | None:
    """Return what the race at the largest batch size says; None where none was run on one thread too, or one was lost."""
    if not all(t.wins(min_speedup) for t in times):
        return None
    known = [t for t in times if t.scripted_alone_ms and t.routed_alone_ms and t.routed_ms]
    if not known:
        return None
    t = max(known, key=lambda t: t.batch)
    assert t.scripted_alone_ms is not None
    assert t.routed_alone_ms is not None
    alone = t.scripted_alone_ms / t.routed_alone_ms
    if (
        not t.doubt and t.routed_alone_ms <= t.routed_ms
    ):  # where others disturb it, the race says nothing of a quiet machine
        return ThreadsPlan(1, 1, alone, alone, t.batch)
    return ThreadsPlan(t.threads, 1, t.speedup, alone, t.batch)
