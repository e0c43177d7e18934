"""A race once more on one thread: what a worker has whose neighbours use the other cores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from dendrofx.machine.pace import cpu_times, pace
from dendrofx.machine.race import Race, on_one_thread


def with_one_thread(result: Race, run: Callable[[], Race]) -> Race:
    """Return a race with the same on one thread, by `run`; as it is where it was run on one."""
    if result.threads == 1:
        return result
    with on_one_thread():
        return replace(result, alone=run())


def wins_alone(result: Race, base: str, again: str, other: str, min_speedup: float) -> str:
    """Say that what loses on several threads wins on one; empty where that is not so, or not known."""
    times, several = cpu_times(result), pace(result, base, again, other).ratio
    if result.threads == 1 or several >= min_speedup or not {base, again, other} <= times.keys():
        return ""
    alone = min(times[base], times[again]) / times[other]
    if alone < max(min_speedup, max(times[base], times[again]) / min(times[base], times[again])):
        return ""
    return (
        f"a rewritten model that lost on {result.threads} threads ({several:.2f} x) is {alone:.2f} x the original on one:"
        " where workers share the cores, transform and run with OMP_NUM_THREADS=1"
    )
