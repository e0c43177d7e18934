"""A load test of two servers in turn: a model as it is and what dendrofx made of it, with the same users and requests.

    pip install -c constraints.txt -e '.[serve]'
    python examples/serve/load.py                   # padded sentences, an encoder with random weights
    python examples/serve/load.py --model digits    # rows

Original, routed, original, routed: so that the original against itself says how much the machine alone moves the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from models import INPUTS, write
from running import Running, ask, running
from stream import requests

HERE = Path(__file__).parent
PROBES = 20  # requests whose answers are compared


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Load both servers in turn and print a table.")
    parser.add_argument("--model", choices=sorted(INPUTS), default="encoder")
    parser.add_argument("--users", type=int, default=16, help="how many ask at once (16)")
    parser.add_argument("--seconds", type=int, default=15, help="of load for each run (15)")
    parser.add_argument("--rounds", type=int, default=2, help="each runs both servers once (2)")
    parser.add_argument("--rate", type=float, default=0, help="requests/s of all users (as fast as answers come)")
    parser.add_argument("--workers", type=int, default=1, help="processes of each server (1)")
    parser.add_argument("--seed", type=int, default=0, help="of the requests (0)")
    return parser.parse_args()


def load(server: Running, asked: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Let locust ask one server for some seconds; return p50 and p99 in ms, requests/s and samples/s."""
    said = {name: getattr(asked, name) for name in ("model", "seed", "users", "rate")}
    out = folder / "seen.json"
    out.unlink(missing_ok=True)
    numbers = ["--users", str(asked.users), "--spawn-rate", str(asked.users), "--run-time", f"{asked.seconds}s"]
    command = [sys.executable, "-m", "locust", "-f", str(HERE / "users.py"), "--headless", *numbers]
    command += ["--host", server.url, "--only-summary", "--loglevel", "WARNING", "--stop-timeout", "10"]
    environment = os.environ | {"LOAD": json.dumps({**said, "out": str(out)})}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=asked.seconds + 60
    )
    if not out.exists():
        raise SystemExit(f"locust failed:\n{done.stdout}{done.stderr}")
    return figures(json.loads(out.read_text(encoding="utf-8")), asked.seconds)


def figures(seen: dict[str, Any], seconds: float) -> dict[str, float]:
    """Return what a run's answered requests come to; those after the last second of load are left out."""
    kept = [(took, samples) for at, took, samples in seen["answered"] if at <= seconds]
    if seen["failed"] or not kept:
        raise SystemExit(f"{len(seen['failed'])} requests failed: {seen['failed'][:1] or 'none was answered'}")
    times = sorted(took for took, _ in kept)
    return {
        "p50 ms": statistics.median(times),
        "p99 ms": float(np.quantile(times, 0.99)),
        "requests/s": len(kept) / seconds,
        "samples/s": sum(samples for _, samples in kept) / seconds,
    }


def table(runs: list[tuple[str, dict[str, float]]]) -> str:
    """Return every run, the ratio of each round, and the original against itself."""
    names = list(runs[0][1])
    original, routed = ([r for kind, r in runs if kind == wanted] for wanted in ("original", "routed"))
    lines = [[kind, *(f"{run[n]:.1f}" for n in names)] for kind, run in runs]
    pairs = [("routed / original", *pair) for pair in zip(routed, original, strict=True)]
    pairs += [("original / original", later, original[0]) for later in original[1:]]
    lines += [[said, *(f"{a[n] / b[n]:.2f} x" for n in names)] for said, a, b in pairs]
    return tabulate(lines, ["", *names], disable_numparse=True, colalign=["left", *["right"] * len(names)])


def deviation(original: list[np.ndarray[Any, Any]], routed: list[np.ndarray[Any, Any]]) -> str:
    """Return how far the answers of one server are from those of the other, in relative L2 of each sample."""
    a, b = np.concatenate(original), np.concatenate(routed)
    off = np.linalg.norm(b - a, axis=1) / np.linalg.norm(a, axis=1)
    return f"{len(a)} samples, routed from original: mean {off.mean():.1e}, largest {off.max():.1e}"


def main() -> None:
    """Run the rounds and print what was seen."""
    asked = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that servers are stopped then too
    runs, answers = [], {}
    with tempfile.TemporaryDirectory() as name:
        paths = write(asked.model, Path(name))
        for kind, path in [*zip(("original", "routed"), paths, strict=True)] * asked.rounds:
            with running(path, INPUTS[asked.model], asked.workers) as server:
                runs.append((kind, load(server, asked, Path(name))))
                print(f"{kind}: {server.said()}", flush=True)
                stream = requests(asked.model, asked.seed, -1)
                answers[kind] = [ask(server, next(stream)) for _ in range(PROBES)]
    cores = os.cpu_count()
    print(f"\n{asked.users} users, {asked.seconds} s a run, {asked.workers} worker(s) of one thread, {cores} cores")
    print(table(runs))
    print(deviation(answers["original"], answers["routed"]))


if __name__ == "__main__":
    main()
