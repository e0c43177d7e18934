"""The cores that this process may really use, and whether more wants to run than there is room for.

A container often sees every core of its machine and may use two: a set of cores that it may run on (its affinity) says so, or a
quota of time on all of them, which the kernel writes into files of its control groups. libgomp starts a thread for each core of
the affinity and knows no quota. Where more threads run than cores are free, those of one call wait for each other at every
parallel region (`parallel_regions.py`), a scheduler's time slice each.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

GROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc")


def crowded(threads: int, groups: Path = GROUPS, proc: Path = PROC) -> str:
    """Say that more wants to run than there are cores, and which setting helps; empty where there is room.

    On one thread nothing is said: a call waits for no other thread of its own, and no setting of it helps further.

    Args:
        threads: that a call may use, `torch.get_num_threads()`.
        groups: where the control groups are mounted, of version 2 or 1.
        proc: where the system tells about processes.

    Example:
        >>> crowded(8)
        '8 threads on 2 cores: OMP_NUM_THREADS=2'
    """
    if threads == 1:
        return ""
    cores = usable_cores(groups, proc / "self" / "cgroup")
    if threads > cores:
        return f"{threads} threads on {_count(cores, 'core')}: OMP_NUM_THREADS={cores}"
    others = busy_others(proc)
    there = os.cpu_count() or 1  # the load is of the whole machine
    if others and others + threads > there:
        return f"{_count(others, 'busy process', 'es')} on {_count(there, 'core')}: run workers with OMP_NUM_THREADS=1"
    return ""


@contextmanager
def on_free_cores() -> Iterator[None]:
    """Have torch compute on one thread within the block where the machine is crowded: for what is checked, and not timed.

    There a call on several threads waits at each of hundreds of regions, however little it computes.
    """
    threads = torch.get_num_threads()
    alone = bool(crowded(threads))
    if alone:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if alone:
            torch.set_num_threads(threads)


def usable_cores(groups: Path = GROUPS, member: Path = PROC / "self" / "cgroup") -> int:
    """Return the number of cores that this process may use, at least 1: no more than its affinity and its quotas allow.

    Args:
        groups: where the control groups are mounted, of version 2 or 1.
        member: says which of them this process is in, a line `number:controllers:path` each.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([allowed, *_quotas(groups, member)])))


def busy_others(proc: Path = PROC) -> int:
    """Return how many threads of other processes want to run: now, and over the last minute.

    The least of both: the load of the last minute remembers what this process did itself, and a moment may be a chance.
    """
    fields = _read(proc / "loadavg").split()
    if len(fields) < 4:
        return 0
    running = int(fields[3].partition("/")[0]) - max(sum(_own_running(proc)), 1)
    return max(min(running, round(float(fields[0]))), 0)


def _own_running(proc: Path) -> Iterator[bool]:
    """Yield of each thread of this process whether it runs or wants to."""
    for task in (proc / "self" / "task").glob("*/stat"):
        yield _read(task).rpartition(")")[2].split()[:1] == ["R"]  # a name may hold anything, a bracket too


def _quotas(groups: Path, member: Path) -> list[float]:
    """Return the cores' worth of time that each group of this process allows, those above it included."""
    found = []
    for line in _read(member).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        tree = groups / "cpu" if controllers else groups  # version 1 has a tree for each controller
        here = tree / path.lstrip("/")
        found += [_quota(folder) for folder in (here, *here.parents) if folder.is_relative_to(tree)]
    return [cores for cores in found if cores]


def _quota(folder: Path) -> float | None:
    """Return the cores' worth of time of one group; None without a limit."""
    both = _read(folder / "cpu.max").split() or [
        *_read(folder / "cpu.cfs_quota_us").split(),
        *_read(folder / "cpu.cfs_period_us").split(),
    ]
    if len(both) != 2 or both[0] in ("max", "-1"):
        return None
    return int(both[0]) / int(both[1])


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return ""


def _count(number: int, noun: str, plural: str = "s") -> str:
    return f"{number} {noun}{'' if number == 1 else plural}"
