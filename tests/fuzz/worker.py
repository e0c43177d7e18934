"""The process that calls are made in. What it is at is in a file before it begins, so that a crash or a hang has a name."""

from __future__ import annotations

import json
import mmap
import os
import random
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

NOW, COUNTS, SIZE = "now", "counts.json", 256
EVERY = 1000  # calls after which the counts are written


class Worker:
    """Makes calls, and counts what becomes of them.

    Args:
        folder: of its files.
        cases: after so many it ends.
    """

    def __init__(self, folder: Path, cases: int) -> None:
        from tests.fuzz.targets import names, targets  # instrumented before

        warnings.simplefilter("ignore")
        self.folder, self.cases, self.made = folder, cases, 0
        self.targets, self.names = targets(), names()
        self.counts: Counter[tuple[str, str]] = Counter()
        self.wrong: dict[str, str] = {}
        (folder / NOW).write_bytes(bytes(SIZE))
        with (folder / NOW).open("r+b") as file:
            self.now = mmap.mmap(file.fileno(), SIZE)

    def one(self, data: bytes) -> None:
        """Make one call; after the last one the process ends."""
        self.made += 1
        self.now[: 9 + len(data)] = self.made.to_bytes(8, "big") + bytes([len(data)]) + data
        kind, text = self.judged(data)
        self.counts[kind, text] += 1
        if kind == "WRONG" and text not in self.wrong:
            self.wrong[text] = self._smallest(data, text).hex()
        if self.made == self.cases or self.made % EVERY == 0:
            self.write()
        if self.made == self.cases:
            sys.stdout.flush()
            os._exit(0)  # what drives it would go on

    def judged(self, data: bytes) -> tuple[str, str]:
        """What became of a call: its kind, and words that are the same for its like."""
        from tests.fuzz.draws import draw
        from tests.fuzz.judge import judge
        from tests.fuzz.report import alike

        call = draw(data, self.names)
        target = self.targets[call.target]
        found = judge(call, target)
        where = f"{target.name}: " if found.kind == "WRONG" else ""
        return found.kind, where + alike(found.text)

    def _smallest(self, data: bytes, text: str) -> bytes:
        from tests.fuzz.draws import smallest

        return smallest(data, lambda changed: self.judged(changed) == ("WRONG", text))

    def write(self) -> None:
        """Write what was counted, whole."""
        found = {"made": self.made, "counts": [[*k, n] for k, n in self.counts.items()], "wrong": self.wrong}
        (self.folder / f"{COUNTS}.part").write_text(json.dumps(found))
        (self.folder / f"{COUNTS}.part").replace(self.folder / COUNTS)


def now(folder: Path) -> tuple[int, bytes]:
    """The number and the bytes of the call that a worker is at, or was when it ended; 0 before the first."""
    try:
        found = (folder / NOW).read_bytes()
    except FileNotFoundError:
        return 0, b""
    return int.from_bytes(found[:8], "big"), found[9 : 9 + found[8]] if len(found) > 8 else b""


def main(folder: Path, cases: int, seed: int, guided: bool) -> NoReturn:
    """Make so many calls: bytes from atheris, which looks for new paths through dendrofx, or from a seeded generator."""
    _guided(folder, cases, seed) if guided else _random(folder, cases, seed)
    raise SystemExit("it ended before its last call")


def _random(folder: Path, cases: int, seed: int) -> None:
    from tests.fuzz.draws import LENGTH

    worker, rng = Worker(folder, cases), random.Random(seed)
    while True:
        worker.one(rng.randbytes(LENGTH))


def _guided(folder: Path, cases: int, seed: int) -> None:
    atheris: Any = import_module("atheris")
    with atheris.instrument_imports(
        include=["dendrofx"]
    ):  # its files are imported when they are needed, by the targets
        from tests.fuzz.targets import targets

        targets()
    from tests.fuzz.draws import LENGTH

    worker, rng = Worker(folder, cases), random.Random(seed)
    corpus = folder / "corpus"
    corpus.mkdir(exist_ok=True)
    for i in range(64):
        (corpus / str(i)).write_bytes(rng.randbytes(LENGTH))
    own = {"seed": seed + 1, "max_len": LENGTH, "len_control": 0, "rss_limit_mb": 0, "timeout": 100_000}  # we watch it
    options = [*(f"-{name}={value}" for name, value in own.items()), f"-artifact_prefix={folder}/", str(corpus)]
    fuzz: Callable[[Any], Any] = worker.one
    atheris.Setup([sys.argv[0], *options], fuzz)
    atheris.Fuzz()
