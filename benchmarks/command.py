"""The skeleton of the commands `python -m benchmarks.NAME`: how they read their options, fail, and write JSON.

A command's file says its options; what it does is the study of the same name, which is imported when it runs: so `--help` answers
without loading torch.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from benchmarks.models.packages import CaseUnavailableError
from dendrofx.errors import DendrofxError
from dendrofx.machine.files import write_whole


class Command(argparse.ArgumentParser):
    """A parser that says on one line what is wrong with the options, with exit code 2.

    Args:
        name: of the file in `benchmarks/`.
        description: what it does.
        cases: names that `--case` takes.
        default: the cases where none is named.
        several: whether `--case` takes more than one.
    """

    def __init__(
        self, name: str, description: str, cases: Sequence[str], default: Sequence[str], several: bool = False
    ) -> None:
        super().__init__(prog=f"python -m benchmarks.{name}", description=description)
        self.name, self.cases = name, tuple(cases)
        self.add_argument(
            "--case",
            nargs="+" if several else 1,
            default=list(default),
            metavar="NAME",
            help=f"any of {', '.join(cases)}",
        )

    def error(self, message: str) -> NoReturn:
        """Exit with the message behind the command's name."""
        self.exit(2, f"{self.name}: {message}\n")

    def parse(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """Return the options, checked one by one."""
        args = self.parse_args(argv)
        for name in args.case:
            if name not in self.cases:
                self.error(f"unknown case {name!r}: choose from {', '.join(self.cases)}")
        return args

    def run(self, args: argparse.Namespace) -> int:
        """Run the study of the command's name; return the exit code, 2 with the reason for what cannot be used as given."""
        study = import_module(f"benchmarks.studies.{self.name}")
        try:
            study.run(args)
        except (DendrofxError, CaseUnavailableError, OSError) as error:
            print(f"{self.name}: {error}", file=sys.stderr)
            return 2
        return 0


def write_json(path: Path, body: object) -> None:
    """Write every figure of a run, whole or not at all."""
    write_whole(path, json.dumps(body, indent=1) + "\n")


def writable_dir(folder: Path) -> Path:
    """Create a folder if need be; `OSError` that names it when it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"cannot write to {folder}: {error.strerror or error}. Choose another folder") from error
    return folder


def writable_file(path: Path | None) -> None:
    """Refuse a file that cannot be written to, before anything runs."""
    if path is None:
        return
    writable_dir(path.parent)
    if path.is_dir():
        raise IsADirectoryError(f"cannot write to {path}: it is a folder. Name a file")


def positive(text: str) -> int:
    """Read a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def seed(text: str) -> int:
    """Read a seed as torch takes it."""
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to 2^63 - 1, got {text!r}")
    return int(text)


def number(text: str) -> float:
    """Read a number; NaN for what is none."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


def seconds(text: str) -> float:
    """Read a finite time of at least 0."""
    if not 0 <= number(text) < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of at least 0, got {text!r}")
    return number(text)


def share(text: str) -> float:
    """Read what a single sample may deviate by."""
    if not 0 < number(text) <= 1:
        raise argparse.ArgumentTypeError(f"must be a number above 0 and at most 1 such as 0.2, got {text!r}")
    return number(text)


def deviation(text: str) -> float:
    """Read a budget for the mean deviation."""
    if not 0 < number(text) < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0 such as 0.01, got {text!r}")
    return number(text)
