"""Compare a model eager, scripted and routed, on real input.

    python -m benchmarks.compare                            the default case, digits, at batch 1, 32 and 256
    python -m benchmarks.compare --case tiara --batch 256 --sweep --plots out --json out/tiara.json

One table per case and batch. Exit code 2, with the reason, for anything that cannot be used as given.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch

from benchmarks.cases import CASES, CaseOptions, CaseUnavailableError
from benchmarks.records import Bench, Record
from benchmarks.sweep import run_sweep
from benchmarks.tables import footer, sweep_table, table
from benchmarks.variants import build_variants, prepare
from dendrofx.errors import DendrofxError
from dendrofx.machine import describe_machine

SECONDS, QUICK_SECONDS = 4.0, 0.5
BATCHES, QUICK_BATCHES = (1, 32, 256), (1, 256)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"compare: {message}\n")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line, checked."""
    p = _Parser(prog="python -m benchmarks.compare", description=(__doc__ or "").partition("\n")[0])
    p.add_argument("--case", nargs="+", default=["digits"], metavar="NAME", help=f"any of {', '.join(CASES)}")
    p.add_argument("--batch", nargs="+", type=_positive, metavar="N", help="rows per call (default 1 32 256)")
    p.add_argument("--threads", type=_positive, default=min(2, os.cpu_count() or 1), metavar="N")
    p.add_argument(
        "--max-deviation", type=_budget, default=0.01, metavar="X", help="budget for the mean deviation (0.01)"
    )
    p.add_argument(
        "--sweep", action="store_true", help="also 11 tolerances from all full to all light: table, CSV, plots"
    )
    p.add_argument("--quick", action="store_true", help="a short run, for a smoke test")
    p.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE")
    p.add_argument("--plots", type=Path, metavar="DIR", help="where --sweep writes CSV and plots (default sweep/)")
    p.add_argument("--seed", type=_seed, default=0, metavar="N")
    p.add_argument("--width", type=_positive, default=1024, metavar="N", help="of the case wide")
    p.add_argument("--depth", type=_positive, default=3, metavar="N", help="hidden layers of the case wide")
    args = p.parse_args(argv)
    for name in args.case:
        if name not in CASES:
            p.error(f"unknown case {name!r}: choose from {', '.join(CASES)}")
    if args.plots is not None and not args.sweep:
        p.error("--plots draws the sweep: add --sweep")
    return args


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to 2^63 - 1, got {text!r}")
    return int(text)


def _budget(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0 such as 0.01, got {text!r}")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parse(argv)
    try:
        plots = writable_dir(args.plots or Path("sweep")) if args.sweep else None
        if args.json is not None:
            writable_dir(args.json.parent)
            if args.json.is_dir():
                raise IsADirectoryError(f"cannot write to {args.json}: it is a folder. Name a file")
        torch.set_num_threads(args.threads)
        machine = describe_machine()
        records = [r for name in args.case for r in run_case(name, args, machine, plots)]
        if args.json is not None:
            body = {"machine": machine, "cases": [r.to_json() for r in records]}
            write_whole(args.json, lambda path: path.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8"))
            print(f"wrote {args.json}")
    except (DendrofxError, CaseUnavailableError, OSError) as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    return 0


def run_case(name: str, args: argparse.Namespace, machine: dict[str, str], plots: Path | None) -> list[Record]:
    """Every table of one case."""
    case = CASES[name](CaseOptions(args.seed, args.quick, args.width, args.depth))
    print(f"\n=== {case.name}: {case.title}", flush=True)
    prepared = prepare(case, args.max_deviation, args.seed)
    print(f"{len(case.test)} test rows, used for nothing else\n\n{prepared.plan}\n", flush=True)
    variants = build_variants(prepared, args.seed)
    records = []
    for batch in args.batch or (QUICK_BATCHES if args.quick else BATCHES):
        bench = Bench(prepared, batch, QUICK_SECONDS if args.quick else SECONDS, args.seed)
        record = bench.measure(variants)
        print(
            f"--- {case.name}, batch {batch}\n\n{table(record)}\n\n{footer(record, machine, args.seed)}\n", flush=True
        )
        if plots is not None:
            record.sweep.extend(run_sweep(bench, variants))
            print(f"sweep of the tolerance, batch {batch}\n\n{sweep_table(record.sweep)}\n")
            write_sweep(record, plots, machine)
        records.append(record)
    return records


def write_sweep(record: Record, folder: Path, machine: dict[str, str]) -> None:
    """CSV and plots of one sweep."""
    from benchmarks.plots import plot_sweep, save  # matplotlib is slow to import and only needed here

    stem = f"{record.prepared.case.name}-b{record.batch}-t{record.threads}"
    write_whole(folder / f"{stem}.csv", lambda path: _write_csv(path, record.sweep))
    for kind, figure in plot_sweep(record, machine["cpu"]).items():
        write_whole(folder / f"{stem}-{kind}.png", lambda path, figure=figure: save(figure, path))  # type: ignore[misc]
    print(f"wrote {folder / stem}.csv, -activity.png and -compute.png\n")


def _write_csv(path: Path, points: Sequence[Any]) -> None:
    rows = [
        {k: v for k, v in p.items() if not isinstance(v, dict)}
        | {f"{k}_{inner}": v for k, d in p.items() if isinstance(d, dict) for inner, v in d.items()}
        for p in points
    ]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def writable_dir(folder: Path) -> Path:
    """Create a folder if need be; `OSError` that names it when it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"cannot write to {folder}: {error.strerror or error}. Choose another folder") from error
    return folder


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside `path`, then rename: a file is there whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    try:
        write(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
