"""Busy processes to measure beside: what a server with several workers does to each of them, on purpose and for a while."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from dendrofx.errors import DendrofxError

NEIGHBOURS = 2
# A worker multiplies matrices until the process that started it is gone, however that ended. It leaves Ctrl-C to that one.
_WORKER = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
import torch
started_by = int(sys.argv[1])
x = torch.randn(512, 512)
print(torch.get_num_threads(), flush=True)
while os.getppid() == started_by:
    torch.mm(x, x)
"""
# What sets a thread count from outside: a worker with default settings has none of it.
_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_THREAD_LIMIT")


@contextmanager
def neighbours(count: int = NEIGHBOURS, threads: int | None = None) -> Iterator[tuple[int, ...]]:
    """Have workers compute beside the block; they have started computing when it begins, and are gone when it ends.

    Args:
        count: of workers, each a Python process that multiplies matrices with torch.
        threads: of each; None for torch's default.

    Yields:
        Their process ids.

    Raises:
        DendrofxError: a worker did not start.

    Example:
        >>> with neighbours(2):
        ...     found = race(calls, seconds=3.0)
    """
    workers: list[subprocess.Popen[str]] = []
    try:
        for _ in range(count):
            workers.append(_start(threads))
        for worker in workers:
            _await(worker)
        yield tuple(worker.pid for worker in workers)
    finally:
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.communicate()


def _start(threads: int | None) -> subprocess.Popen[str]:
    env = {name: value for name, value in os.environ.items() if name not in _SETTINGS}
    env |= {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-W", "ignore", "-c", _WORKER, str(os.getpid())]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _await(worker: subprocess.Popen[str]) -> None:
    """Wait until a worker computes."""
    assert worker.stdout is not None
    assert worker.stderr is not None
    if not worker.stdout.readline():
        said = worker.stderr.read().strip().splitlines()
        raise DendrofxError(f"a worker to measure beside did not start: {said[-1] if said else 'it said nothing'}")
