"""Cores: no more than the affinity and the quotas of the process allow; and what is said where more wants to run."""

import os
from pathlib import Path

import pytest

from dendrofx.machine.cores import crowded, usable_cores

CORES = 8


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(CORES)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: CORES)


@pytest.mark.parametrize(
    ("member", "files", "cores"),
    [
        ("", {}, CORES),
        ("0::/", {}, CORES),
        ("0::/", {"cpu.max": "max 100000\n"}, CORES),
        ("0::/", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/", {"cpu.max": "250000 100000\n"}, 2),
        ("0::/", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/", {"cpu.max": "6400000 100000\n"}, CORES),
        ("0::/a/b", {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "max 100000\n"}, 3),
        ("0::/a/b", {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "200000 100000\n"}, 2),
        ("4:memory:/m\n3:cpuset:/\n1:cpu,cpuacct:/a", {"cpu/a/cpu.cfs_quota_us": "300000", "cpu/a/cpu.cfs_period_us": "100000"}, 3),
        ("1:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, CORES),
        ("1:cpu:/not/mounted", {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
    ],
)  # fmt: skip
def test_quotas_and_affinity(tmp_path: Path, member: str, files: dict[str, str], cores: int) -> None:
    groups = tmp_path / "groups"
    for name, text in files.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(text, encoding="utf-8")
    (tmp_path / "member").write_text(member, encoding="utf-8")
    assert usable_cores(groups, tmp_path / "member") == cores


def test_here_they_are_no_more_than_the_cores_of_this_process() -> None:
    assert 1 <= usable_cores() <= CORES


QUIET, BUSY = "0.34 0.79 1.15 1/300 99\n", "6.10 5.0 4.0 8/300 99\n"  # two that run are this process's own


@pytest.mark.parametrize(
    ("threads", "load", "quota", "says"),
    [
        (8, QUIET, "max", ""),
        (8, QUIET, "200000", "8 threads on 2 cores: OMP_NUM_THREADS=2"),
        (2, QUIET, "100000", "2 threads on 1 core: OMP_NUM_THREADS=1"),
        (9, QUIET, "max", "9 threads on 8 cores: OMP_NUM_THREADS=8"),
        (4, BUSY, "max", "6 busy processes on 8 cores: run workers with OMP_NUM_THREADS=1"),
        (8, "1.02 1.0 1.0 3/300 99", "max", "1 busy process on 8 cores: run workers with OMP_NUM_THREADS=1"),
        (2, BUSY, "max", ""),  # two cores are free
        (8, "6.10 5.0 4.0 2/300 99", "max", ""),  # what this process did before, or others that have ended
        (8, "0.10 5.0 4.0 8/300 99", "max", ""),  # a moment
        (8, "", "", ""),  # a system that does not say
        (1, BUSY, "50000", ""),
    ],
)  # fmt: skip
def test_what_is_said_where_more_wants_to_run(tmp_path: Path, threads: int, load: str, quota: str, says: str) -> None:
    proc, groups = tmp_path / "proc", tmp_path / "groups"
    for number, state in (("1", "R"), ("2", "R"), ("3", "S")):
        (proc / "self" / "task" / number).mkdir(parents=True)
        (proc / "self" / "task" / number / "stat").write_text(f"{number} (a) R (b) {state} 0 0", encoding="utf-8")
    groups.mkdir()
    (groups / "cpu.max").write_text(f"{quota} 100000\n" if quota else "", encoding="utf-8")
    (proc / "self" / "cgroup").write_text("0::/\n", encoding="utf-8")
    (proc / "loadavg").write_text(load, encoding="utf-8")
    assert crowded(threads, groups, proc) == says


def test_on_one_thread_nothing_is_said_of_this_machine() -> None:
    assert crowded(1) == ""
