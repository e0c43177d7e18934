"""`python -m tests.fuzz`: many hostile calls, and what became of them."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from tests.fuzz import worker

HUNG, STARTS = 60, 300  # seconds without a new call, and before the first
MOST_CRASHES = 5


def main() -> int:
    """Run it; 1 where something was wrong, crashed or hung."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000, help="calls")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--random", action="store_true", help="from a seeded generator, though atheris is there")
    parser.add_argument("--show", metavar="HEX", help="one call, by its bytes, and what became of it")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    guided = not given.random and find_spec("atheris") is not None
    if given.show is not None:
        return show(bytes.fromhex(given.show))
    if given.worker is not None:
        worker.main(given.worker, given.cases, given.seed, guided)
    return run(given.cases, given.seed, guided)


def run(cases: int, seed: int, guided: bool) -> int:
    """Make so many calls, in a new process after each crash; print what became of them."""
    from tests.fuzz.report import table

    missing = "a seeded random generator; atheris (the extra `fuzz`) is not installed, or not asked for"
    print(f"driven by {'atheris, guided by coverage of dendrofx' if guided else missing}", flush=True)
    start, made = time.monotonic(), 0
    counts: Counter[tuple[str, str]] = Counter()
    wrong: dict[str, str] = {}
    crashed: list[str] = []
    while made < cases and len(crashed) < MOST_CRASHES:
        with tempfile.TemporaryDirectory() as folder:
            ended = _worked(Path(folder), cases - made, seed + len(crashed), guided)
            reached, data = worker.now(Path(folder))
            if (file := Path(folder) / worker.COUNTS).exists():
                found = json.loads(file.read_text())
                counts.update({(kind, text): n for kind, text, n in found["counts"]})
                wrong.update(found["wrong"])
        made += reached
        if ended:
            crashed.append(f"{ended} at --show {data.hex()}")
            print(crashed[-1], file=sys.stderr, flush=True)
    print(table(counts, wrong, crashed))
    print(f"{made} calls, seed {seed}, {time.monotonic() - start:.0f} s")
    return int(bool(wrong or crashed) or made < cases)


def _worked(folder: Path, cases: int, seed: int, guided: bool) -> str:
    """Let a process make calls; how it ended, in words, empty where it made all of them."""
    options: Sequence[str] = ["--worker", str(folder), "--cases", str(cases), "--seed", str(seed)]
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.fuzz", *options, *([] if guided else ["--random"])]
    log = folder / "log"
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        seen, since = -1, time.monotonic()
        while process.poll() is None:
            time.sleep(0.2)
            if (reached := worker.now(folder)[0]) != seen:
                seen, since = reached, time.monotonic()
            elif time.monotonic() - since > (HUNG if seen else STARTS):
                process.kill()
                process.wait()
                return "hung"
    if process.returncode == 0 and worker.now(folder)[0] == cases:
        return ""
    lines = log.read_text(errors="replace").splitlines()
    said = next((line for line in lines if "Error" in line or "Fatal" in line), (lines or [""])[-1])
    return f"ended with {process.returncode} ({said[:60]})"


def show(data: bytes) -> int:
    """Print one call and what became of it."""
    from tests.fuzz.draws import draw
    from tests.fuzz.judge import WRONG, judge
    from tests.fuzz.targets import names, targets

    call = draw(data, names())
    found = judge(call, targets()[call.target])
    print(f"{targets()[call.target].name}\n{call}\n{found.kind}: {found.text}")
    return int(found.kind == WRONG)


if __name__ == "__main__":
    sys.exit(main())
