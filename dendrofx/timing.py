"""Timing callables against each other in one process, on a machine that may be disturbed.

The callables take turns (A B C, C A B, ...): a drift of the machine hits all of them alike. Each turn is one untimed call,
which brings the callable's own weights back into the caches, and one timed call; where calls are long, the timed one alone.
"""

from __future__ import annotations

import math
import random
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

LEAST_ROUNDS = 15
MOST_ROUNDS = 400
# Calls of this length spend less than a hundredth of it on bringing weights into the caches.
LONG_SECONDS = 0.05
# An A/A ratio further from 1 than this, or more involuntary context switches per second, is a disturbed machine.
AA_NOISE = 0.05
SWITCHES_PER_SECOND = 100.0


@dataclass(frozen=True)
class Timing:
    """The timed calls of one callable, in ms."""

    ms: tuple[float, ...]

    @property
    def p50(self) -> float:
        """Median, ms."""
        return statistics.median(self.ms)

    @property
    def p95(self) -> float:
        """95th percentile (nearest rank), ms."""
        return sorted(self.ms)[-(-95 * len(self.ms) // 100) - 1]


@dataclass(frozen=True)
class Race:
    """Timings of callables that took turns, and how disturbed the machine was."""

    timings: dict[str, Timing]
    rounds: int
    switches_per_second: float

    def ratio(self, a: str, b: str) -> float:
        """Median of a over median of b."""
        return self.timings[a].p50 / self.timings[b].p50

    def noisy(self, a: str, again: str) -> bool:
        """Whether a callable against itself is off by more than 5 %, or the machine was busy with something else."""
        return abs(self.ratio(again, a) - 1) > AA_NOISE or self.switches_per_second > SWITCHES_PER_SECOND


def race(
    calls: Mapping[str, Callable[[int], object]],
    seconds: float,
    seed: int = 0,
    least_rounds: int = LEAST_ROUNDS,
    most_seconds: float = math.inf,
    untimed_rounds: int = 4,
    pause: Callable[[], object] = lambda: None,
) -> Race:
    """Time callables in turns.

    Args:
        calls: by name; each takes the number of the round, so that all of them get the same inputs in a round.
        seconds: rough time to spend; at least `least_rounds` and at most 400 rounds are run.
        seed: of the order of turns.
        least_rounds: however long they take,
        most_seconds: unless this is over; then two rounds are enough.
        untimed_rounds: before them, at least one: the last says how many rounds fit. TorchScript instruments its first call and
            optimises on its second: 1 where these were made.
        pause: called before each round of long calls.

    Returns:
        The timings, one per round and callable.
    """
    started = 0.0
    for number in range(max(untimed_rounds, 1)):
        started = time.perf_counter()
        for call in calls.values():
            call(number)
    spent = time.perf_counter() - started
    warms = spent < LONG_SECONDS * len(calls)
    turn = max((2 if warms else 1) * spent, 1e-6)
    rounds = min(max(int(seconds / turn), least_rounds), MOST_ROUNDS)
    ms: dict[str, list[float]] = {name: [] for name in calls}
    order, shuffle = list(calls), random.Random(seed)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw, time.perf_counter()
    for number in range(rounds):
        if number >= 2 and time.perf_counter() - started > most_seconds:
            break
        shuffle.shuffle(order)
        if not warms:
            pause()
        for name in order:
            if warms:
                calls[name](number)
            start = time.perf_counter()
            calls[name](number)
            ms[name].append((time.perf_counter() - start) * 1e3)
    spent = time.perf_counter() - started
    switches = (resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - before) / max(spent, 1e-9)
    return Race({name: Timing(tuple(values)) for name, values in ms.items()}, len(ms[order[0]]), switches)
