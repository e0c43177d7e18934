"""The figures of one race of a rewritten model against the original."""

from __future__ import annotations

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
