"""Busy processes to measure beside: they compute while they are wanted, and nothing leaves them behind."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dendrofx.errors import DendrofxError
from dendrofx.machine import neighbours as module
from dendrofx.machine.neighbours import neighbours

ROOT = Path(__file__).parents[2]
# Nothing to load, nothing to multiply: what is tested is how a worker starts and ends.
STAND_IN = (
    "from types import SimpleNamespace\n"
    "torch = SimpleNamespace(randn=lambda *n: 0, get_num_threads=lambda: 1, mm=lambda a, b: 0)\n"
)
QUICK = module._WORKER.replace("import torch\n", STAND_IN)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("ending", [None, KeyboardInterrupt, RuntimeError])
def test_workers_are_gone_when_the_block_ends(
    ending: type[BaseException] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WORKER", QUICK)
    seen: list[int] = []

    def beside() -> None:
        with neighbours(2) as found:
            seen.extend(found)
            assert all(map(alive, seen))
            for pid in seen:
                os.kill(pid, signal.SIGINT)  # what a terminal sends to all of them
            if ending is not None:
                raise ending
            assert all(map(alive, seen))

    if ending is None:
        beside()
    else:
        with pytest.raises(ending):
            beside()
    assert len(seen) == 2
    assert not any(map(alive, seen))


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs process descriptors (Linux)")
def test_workers_end_with_a_process_that_was_killed() -> None:
    code = (
        "import time\nfrom dendrofx.machine import neighbours as m\n"
        f"m._WORKER = {QUICK!r}\n"
        "with m.neighbours(2) as pids:\n    print(*pids, flush=True)\n    time.sleep(600)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        watched = [os.pidfd_open(int(pid)) for pid in process.stdout.readline().split()]
        process.kill()
    assert len(watched) == 2
    for descriptor in watched:
        assert select.select([descriptor], [], [], 60)[0], "it still runs"
        os.close(descriptor)


def test_a_worker_that_does_not_start_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WORKER", "raise SystemExit('no torch here')")
    with (
        pytest.raises(DendrofxError, match=r"^a worker to measure beside did not start: no torch here$"),
        neighbours(1),
    ):
        raise AssertionError("it began")


@pytest.mark.slow
def test_a_worker_multiplies_on_as_many_threads_as_torch_takes_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with neighbours(1) as (pid,):
        tasks = Path(f"/proc/{pid}/task")
        assert not tasks.exists() or len(list(tasks.iterdir())) >= len(os.sched_getaffinity(0))
    with neighbours(1, threads=1) as (pid,):
        assert alive(pid)
