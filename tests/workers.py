"""How many processes the tests run in: as many as the cores that this one may really use.

A container often sees every core of its machine and may use two: a set of cores that it may run on (its affinity) says so, or a
quota of time on all of them, which the kernel writes into files of its control groups. Workers beyond that wait for each other.
"""

import os
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
MEMBER = Path("/proc/self/cgroup")


def usable_cores(groups: Path = GROUPS, member: Path = MEMBER) -> int:
    """Return the number of cores that this process may use, at least 1: no more than its affinity and its quotas allow.

    Args:
        groups: where the control groups are mounted, of version 2 or 1.
        member: says which of them this process is in, a line `number:controllers:path` each.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([allowed, *quotas(groups, member)])))


def quotas(groups: Path, member: Path) -> list[float]:
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
