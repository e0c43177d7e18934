"""Time callables against each other in one process, on a machine that may be disturbed.

The callables take turns (A B C, C A B, ...): a drift of the machine hits all of them alike. Each turn is one untimed call,
which brings the callable's own weights back into the caches, and one timed call; where calls are long, the timed one alone.

Each timed call leaves behind its wall time, the CPU time of the thread that called, and how often a thread of this process lost
its CPU meanwhile. From these `machine/pace.py` reads how much faster one callable is, and whether the machine let the race be fair.
"""

from __future__ import annotations

import math
import random
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch

LEAST_ROUNDS = 15
MOST_ROUNDS = 400
# Calls of this length spend less than a hundredth of it on bringing weights into the caches.
LONG_SECONDS = 0.05
# Of calls of this length that were made before, one says how many rounds fit.
SLOW_SECONDS = 1.0
# An A/A ratio further from 1 than this, or more involuntary context switches per second, is a disturbed machine.
AA_NOISE = 0.05
SWITCHES_PER_SECOND = 100.0


@dataclass(frozen=True)
class Timing:
    """The timed calls of one callable, in the order of the rounds.

    Attributes:
        ms: wall time.
        cpu_ms: CPU time of the calling thread: all of a call's where it runs on one thread. Empty where it was not taken.
        switches: involuntary context switches of all threads of the process. Empty where they were not counted.
        batches: inputs that took turns: round `r` had number `r % batches`.
    """

    ms: tuple[float, ...]
    cpu_ms: tuple[float, ...] = ()
    switches: tuple[int, ...] = ()
    batches: int = 1

    @property
    def p50(self) -> float:
        """Median, ms."""
        return statistics.median(self.ms)

    @property
    def p95(self) -> float:
        """95th percentile, ms."""
        return nearest_rank(self.ms, 95)


@dataclass(frozen=True)
class Race:
    """Timings of callables that took turns, and how disturbed the machine was.

    Attributes:
        timings: by name.
        rounds: of each.
        switches_per_second: involuntary ones of this process, from the first round to the last.
        threads: that a call may use.
        alone: the same callables on one thread, where `threads` are more and the wall times are doubtful.
    """

    timings: dict[str, Timing]
    rounds: int
    switches_per_second: float
    threads: int = 1
    alone: Race | None = None

    def ratio(self, a: str, b: str) -> float:
        """Return the median of a over the median of b."""
        return self.timings[a].p50 / self.timings[b].p50


def nearest_rank(values: tuple[float, ...], percent: int) -> float:
    """Return the smallest value that at least `percent` % of the values do not exceed."""
    return sorted(values)[-(-percent * len(values) // 100) - 1]


def race(
    calls: Mapping[str, Callable[[int], object]],
    seconds: float,
    seed: int = 0,
    least_rounds: int = LEAST_ROUNDS,
    most_seconds: float = math.inf,
    untimed_rounds: int = 4,
    pause: Callable[[], object] = lambda: None,
    batches: Mapping[str, int] | None = None,
) -> Race:
    """Time callables in turns.

    Args:
        calls: by name; each takes the number of the round, so that all of them get the same inputs in a round.
        seconds: rough time to spend; at least `least_rounds` and at most 400 rounds are run.
        seed: of the order of turns.
        least_rounds: run however long they take, unless `most_seconds` are over.
        most_seconds: after which two rounds are enough.
        untimed_rounds: before them, at least one: the last says how many rounds fit. TorchScript instruments its first call and
            optimises on its second: 1 where these were made, which is one call where calls take seconds.
        pause: called before each round of long calls.
        batches: by name, inputs that it takes in turns; 1 by default.

    Returns:
        The timings, one per round and callable.
    """
    spent = _first_rounds(calls, untimed_rounds)
    warms = spent < LONG_SECONDS * len(calls)
    turn = max((2 if warms else 1) * spent, 1e-6)
    rounds = min(max(int(seconds / turn), least_rounds), MOST_ROUNDS)
    taken: dict[str, list[tuple[float, float, int]]] = {name: [] for name in calls}
    order, shuffle = list(calls), random.Random(seed)
    before, started = _switches(), time.perf_counter()
    for number in range(rounds):
        if number >= 2 and time.perf_counter() - started > most_seconds:
            break
        shuffle.shuffle(order)
        if not warms:
            pause()
        for name in order:
            if warms:
                calls[name](number)
            taken[name].append(_timed(calls[name], number))
    spent = time.perf_counter() - started
    switches = (_switches() - before) / max(spent, 1e-9)
    timings = {name: _timing(values, (batches or {}).get(name, 1)) for name, values in taken.items()}
    return Race(timings, len(taken[order[0]]), switches, torch.get_num_threads())


def _first_rounds(calls: Mapping[str, Callable[[int], object]], rounds: int) -> float:
    """Call everything in each of the untimed rounds, and return the seconds that the last one took, or would have taken."""
    started = 0.0
    for number in range(max(rounds, 1)):
        started = time.perf_counter()
        for made, call in enumerate(calls.values(), 1):
            call(number)
            if rounds == 1 and time.perf_counter() - started > SLOW_SECONDS * made:
                return (time.perf_counter() - started) * len(calls) / made
    return time.perf_counter() - started


@contextmanager
def on_one_thread() -> Iterator[None]:
    """Have torch compute on the calling thread alone, within the block."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _timed(call: Callable[[int], object], number: int) -> tuple[float, float, int]:
    """Time one call: wall ms, CPU ms of this thread, and involuntary switches of the process."""
    before, cpu, wall = _switches(), time.thread_time(), time.perf_counter()
    call(number)
    wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
    return wall * 1e3, cpu * 1e3, _switches() - before


def _timing(taken: list[tuple[float, float, int]], batches: int) -> Timing:
    ms, cpu_ms, switches = zip(*taken, strict=True)
    return Timing(ms, cpu_ms, switches, batches)


def _switches() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
