"""A server in a process of its own, on a free port of 127.0.0.1, which is stopped whatever happens."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.request import Request, urlopen

import numpy as np

from stream import Sent

HERE = Path(__file__).parent
STARTS_WITHIN, STOPS_WITHIN = 120, 15  # seconds


@dataclass(frozen=True)
class Running:
    """A server that answers, at an address, and what it printed."""

    url: str
    log: IO[str]

    def said(self) -> str:
        """Return what its workers printed when they were warm, and how large the batches of one of them were."""
        self.log.seek(0)
        warm = [line.strip() for line in self.log if line.startswith("worker ")]
        counters = json.loads(_get(f"{self.url}/counters"))
        found = f"worker {counters['worker']}: {counters['samples'] / max(counters['batches'], 1):.1f} samples a batch"
        macs = {name: n for name, n in (counters["executed"] or {}).items() if name.endswith("_macs")}
        original = sum(n for name, n in macs.items() if name.endswith("original_macs"))
        if original:
            found += f", {(sum(macs.values()) - original) / original:.0%} of its sites' multiply-adds"
        return "\n  ".join([*warm, found])


@contextlib.contextmanager
def running(model: Path, inputs: str, workers: int = 1) -> Iterator[Running]:
    """Serve a file until the block ends.

    Args:
        model: a TorchScript file.
        inputs: what it takes, see README.md.
        workers: processes.

    Raises:
        RuntimeError: it does not start; with what it printed.
    """
    port = _free_port()
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "--app-dir",
        str(HERE),
        "--factory",
        "app:create",
        "--host",
        "127.0.0.1",
    ]
    command += ["--port", str(port), "--workers", str(workers), "--log-level", "warning"]
    environment = os.environ | {"SERVE_MODEL": str(model), "SERVE_INPUTS": inputs, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            server = Running(f"http://127.0.0.1:{port}", log)
            _wait(server, process)
            yield server
        finally:
            _stop(process)


def ask(server: Running, sent: Sent) -> np.ndarray[Any, Any]:
    """Return one request's answer, f32[samples, ...]."""
    request = Request(f"{server.url}/predict", data=sent.body, headers=sent.headers, method="POST")
    with urlopen(request, timeout=30) as answer:
        shape = tuple(map(int, answer.headers["X-Shape"].split(",")))
        return np.frombuffer(answer.read(), dtype=np.float32).reshape(shape)


def _wait(server: Running, process: subprocess.Popen[bytes]) -> None:
    """Return when the server is warm."""
    until = time.monotonic() + STARTS_WITHIN
    while process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError):
            _get(f"{server.url}/health")
            return
        time.sleep(0.1)
    server.log.seek(0)
    raise RuntimeError(f"the server did not start:\n{server.log.read()}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a server, and its workers with it: they are a process group of their own."""
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(STOPS_WITHIN)
    except ProcessLookupError:
        pass
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _get(url: str) -> bytes:
    with urlopen(url, timeout=5) as answer:
        found: bytes = answer.read()
        return found
