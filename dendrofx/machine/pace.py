"""Read a race: how many times as fast one callable is, and whether that can be believed. Pure functions of recorded timings.

A busy machine takes the CPU away from long calls and leaves short ones alone, for a scheduler acts every few milliseconds. The
medians of a long original and a short rewritten model are then no comparison, and the original against itself does not show it,
both entries being interrupted alike. What interruption leaves alone:

    quickest   wall time of the quickest calls, where these are shorter than a scheduler's time slice
    CPU        CPU time on one thread. With several, that of the caller misses the others, and waiting for them counts as work

Where the medians are in doubt these decide, if they agree; on one thread CPU time decides by itself. Where they do not, nothing
is decided.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from dendrofx.machine.race import AA_NOISE, SWITCHES_PER_SECOND, Race, Timing, nearest_rank

SLICE_MS = 3.0  # what a scheduler lets a thread run at least
# An interruption costs milliseconds, other jitter microseconds; a median is touched from these on.
LEAST_MS = 0.5
EXCESS = 1.5  # median over the quickest calls
OFF_CPU = 0.1  # share of the median call in which the calling thread had no CPU
CALL_SWITCHES_PER_SECOND = 50.0  # within the calls, where at least half of these have one
TAIL = 3.0  # 95th percentile over the quickest calls: noisy, though the median may be sound
AGREE = 1.5  # estimates further apart than this factor contradict each other
HELPS = "a quiet machine, one pinned thread or tune_seconds=0 helps"


@dataclass(frozen=True)
class Pace:
    """How many times as fast one callable is as another, by each estimate.

    Attributes:
        medians: of the wall times.
        doubt: why the medians are doubtful, in words; empty where they are not.
        quickest: by the quickest calls; None for calls longer than a time slice.
        cpu: by CPU time on one thread; None where it was not taken.
        threads: that the calls could use.
    """

    medians: float
    doubt: str = ""
    quickest: float | None = None
    cpu: float | None = None
    threads: int = 1

    @property
    def ratio(self) -> float:
        """What to decide on: the medians, or where these are doubtful the least estimate."""
        return min(self._deciding)

    @property
    def reliable(self) -> bool:
        """Whether `ratio` can be decided on."""
        return not self.doubt or (bool(self._untouched) and _agree(self._deciding))

    @property
    def medians_hold(self) -> bool:
        """Whether the wall times as they are may be shown for a comparison."""
        return not self.doubt or (bool(self._untouched) and _agree([*self._untouched, self.medians]))

    @property
    def _untouched(self) -> list[float]:
        return [e for e in (self.quickest, self.cpu) if e is not None]

    @property
    def _deciding(self) -> list[float]:
        if not self.doubt:
            return [self.medians]
        enough = len(self._untouched) == 2 or (self.threads == 1 and self.cpu is not None)
        return self._untouched if enough else [*self._untouched, self.medians]

    def __str__(self) -> str:
        named = (
            (self.medians, "the medians"),
            (self.quickest, "the quickest calls"),
            (self.cpu, "CPU time on one thread"),
        )
        return ", ".join(f"{value:.2f} x by {name}" for value, name in named if value is not None)


def pace(race: Race, base: str, again: str, other: str) -> Pace:
    """Return how many times as fast `other` is as `base`, whose second entry is `again`; of both the better one counts."""
    doubt = touched(race, (base, again, other))
    medians = min(race.timings[name].p50 for name in (base, again)) / race.timings[other].p50
    if not doubt:
        return Pace(medians, threads=race.threads)
    quick = {name: quickest(race.timings[name]) for name in (base, again, other)}
    short = max(quick.values()) < SLICE_MS
    cpu = cpu_times(race)
    return Pace(
        medians,
        doubt,
        min(quick[base], quick[again]) / quick[other] if short else None,
        min(cpu[base], cpu[again]) / cpu[other] if {base, again, other} <= cpu.keys() else None,
        race.threads,
    )


def touched(race: Race, names: Iterable[str]) -> str:
    """Say why medians are doubtful: the callable that was interrupted most, in words; empty where none was."""
    found = [found for name in names for found in _interruptions(name.removesuffix(" again"), race.timings[name])]
    return max(found)[1] if found else ""


def noisy(race: Race, base: str, again: str, *others: str) -> str:
    """Say what shows that the machine was disturbed, the original against itself included; empty where nothing does."""
    if (off := abs(race.ratio(again, base) - 1)) > AA_NOISE:
        return f"{base} against itself is {100 * off:.0f} % off"
    return disturbed(race, base, again, *others)


def disturbed(race: Race, *names: str) -> str:
    """Say what shows it of each callable for itself. The medians may be sound all the same, unless `touched`."""
    if race.switches_per_second > SWITCHES_PER_SECOND:
        return f"{race.switches_per_second:.0f} involuntary context switches per second"
    for name in names:
        timing = race.timings[name]
        if _tail(timing) > TAIL:
            return f"{name}: p95 {timing.p95:.3g} ms, p50 {timing.p50:.3g} ms"
    return touched(race, names)


def quickest(timing: Timing) -> float:
    """Return the lower tenth of the wall times on each batch, the median over the batches, ms."""
    return statistics.median(nearest_rank(ms, 10) for ms in _by_batch(timing))


def cpu_times(race: Race) -> dict[str, float]:
    """Return the medians of CPU time on one thread, ms; empty where it was not taken."""
    alone = race if race.threads == 1 else race.alone
    if alone is None or not all(t.cpu_ms for t in alone.timings.values()):
        return {}
    return {name: statistics.median(t.cpu_ms) for name, t in alone.timings.items()}


def figures(race: Race) -> dict[str, float]:
    """Return what each callable takes, ms: medians of wall times, or where any of these is doubtful CPU time on one thread."""
    return (cpu_times(race) if touched(race, race.timings) else {}) or {n: t.p50 for n, t in race.timings.items()}


@lru_cache(maxsize=256)  # most sentences about a race ask again
def _interruptions(name: str, timing: Timing) -> tuple[tuple[float, str], ...]:
    """Return the share of the median call that interruptions took, and what shows it."""
    return tuple(_shown(name, timing))


def _shown(name: str, timing: Timing) -> Iterator[tuple[float, str]]:
    p50, quick = timing.p50, quickest(timing)
    if timing.cpu_ms:
        off = statistics.median(ms - cpu for ms, cpu in zip(timing.ms, timing.cpu_ms, strict=True))
        if off > max(LEAST_MS, OFF_CPU * p50):
            yield off / p50, f"{name} waited for a CPU in {100 * off / p50:.0f} % of its time"
    if timing.switches and statistics.median(timing.switches) >= 1:
        rate = 1e3 * sum(timing.switches) / sum(timing.ms)
        if rate > CALL_SWITCHES_PER_SECOND:
            yield 0.0, f"{name} lost its CPU {sum(timing.switches)} times in {len(timing.ms)} calls"
    slowed = statistics.median(ms - least for ms, least in _beside_quickest(timing))
    if slowed > max(LEAST_MS, (EXCESS - 1) * quick):
        yield slowed / p50, f"{name} took {p50:.3g} ms, and {quick:.3g} where it was not interrupted"


def _tail(timing: Timing) -> float:
    """Return how many times as long as the quickest one on the same batch the slowest twentieth of the calls took."""
    shares = (ms / least if ms - least > LEAST_MS else 1.0 for ms, least in _beside_quickest(timing))
    return nearest_rank(tuple(shares), 95)


def _beside_quickest(timing: Timing) -> list[tuple[float, float]]:
    """Return each wall time beside the quickest ones on the same batch: one of another size is no interruption."""
    return [(ms, nearest_rank(batch, 10)) for batch in _by_batch(timing) for ms in batch]


def _by_batch(timing: Timing) -> list[tuple[float, ...]]:
    return [timing.ms[first :: timing.batches] for first in range(min(timing.batches, len(timing.ms)))]


def _agree(estimates: list[float]) -> bool:
    return max(estimates) <= AGREE * min(estimates)
