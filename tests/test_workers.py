"""Workers: no more than the affinity and the quotas of the process allow, written by either version of control groups."""

import os
from pathlib import Path

import pytest

from tests.workers import usable_cores

CORES = 8


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(CORES)), raising=False)


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
