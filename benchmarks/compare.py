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

import dendrofx
from benchmarks.ablation import run_ablation
from benchmarks.cases import CASES, CaseOptions, CaseUnavailableError
from benchmarks.kernels import KernelRecord, kernel_tables, run_kernels
from benchmarks.records import Bench, Record
from benchmarks.sweep import run_sweep
from benchmarks.tables import ablation_table, footer, machine_line, sweep_table, table
from benchmarks.variants import Asked, build_variants, prepare
from dendrofx.errors import DendrofxError, InputError
from dendrofx.files import write_whole
from dendrofx.forms import Form, form_from_text
from dendrofx.gates import GateForm
from dendrofx.light import LightForm
from dendrofx.machine import describe_machine

SECONDS, QUICK_SECONDS = 4.0, 0.5
TUNE, QUICK_TUNE = 60.0, 5.0
KERNELS = "kernels"
BATCHES, QUICK_BATCHES = (1, 32, 256), (1, 256)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"compare: {message}\n")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line, checked."""
    p = _Parser(prog="python -m benchmarks.compare", description=(__doc__ or "").partition("\n")[0])
    p.add_argument(
        "--case", nargs="+", default=["digits"], metavar="NAME", help=f"any of {', '.join([*CASES, KERNELS])}"
    )
    p.add_argument("--batch", nargs="+", type=_positive, metavar="N", help="rows per call (default 1 32 256)")
    p.add_argument("--threads", type=_positive, default=min(2, os.cpu_count() or 1), metavar="N")
    p.add_argument(
        "--max-deviation", type=_budget, default=0.01, metavar="X", help="budget for the mean deviation (0.01)"
    )
    p.add_argument(
        "--sweep", action="store_true", help="also 11 tolerances from all full to all light: table, CSV, plots"
    )
    p.add_argument("--ablation", action="store_true", help="also each rung alone, on every row, as a table")
    p.add_argument(
        "--light", type=_form(LightForm), metavar="FORM", help='a light form instead of the ladder: "Int8()"'
    )
    p.add_argument("--gate", type=_form(GateForm), metavar="FORM", help='a gate instead of the best: "NoiseGate()"')
    p.add_argument(
        "--plan", type=Path, metavar="FILE", help="reproduce this plan instead of deciding (one case, one batch)"
    )
    p.add_argument("--save-plan", type=Path, metavar="FILE", help="write the plan of the last table to FILE")
    p.add_argument(
        "--tune-seconds", type=_seconds, metavar="X",
        help="time for timing candidates, per transform (60; 0 decides by counted cost: the same on every run)",
    )  # fmt: skip
    p.add_argument("--quick", action="store_true", help="a short run, for a smoke test")
    p.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE")
    p.add_argument("--plots", type=Path, metavar="DIR", help="where --sweep writes CSV and plots (default sweep/)")
    p.add_argument("--seed", type=_seed, default=0, metavar="N")
    p.add_argument("--width", type=_positive, default=1024, metavar="N", help="of the case wide")
    p.add_argument("--depth", type=_positive, default=3, metavar="N", help="hidden layers of the case wide")
    args = p.parse_args(argv)
    for name in args.case:
        if name not in CASES and name != KERNELS:
            p.error(f"unknown case {name!r}: choose from {', '.join([*CASES, KERNELS])}")
    if args.plots is not None and not args.sweep:
        p.error("--plots draws the sweep: add --sweep")
    if args.plan is not None and (len(args.case) > 1 or len(args.batch or BATCHES) > 1):
        p.error("--plan is for one case at one batch size: name them with --case and --batch")
    if args.plan is not None and (args.light is not None or args.gate is not None):
        p.error("--plan says which light and gate: leave out --light and --gate")
    if set(args.case) == {KERNELS} and (args.plan or args.save_plan or args.light or args.gate):
        p.error("the case kernels has no plan: leave out --light, --gate, --plan and --save-plan")
    return args


def _form(kind: type[Form]) -> Callable[[str], Form]:
    """A parser of forms of one kind."""

    def read(text: str) -> Form:
        try:
            form = form_from_text(text)
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
        if not isinstance(form, kind):
            raise argparse.ArgumentTypeError(f"{text} is no {'light' if kind is LightForm else 'gate'} form")
        return form

    return read


def _seconds(text: str) -> float:
    value = _float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of at least 0, got {text!r}")
    return value


def _float(text: str) -> float:
    """NaN for what is no number."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to 2^63 - 1, got {text!r}")
    return int(text)


def _budget(text: str) -> float:
    value = _float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0 such as 0.01, got {text!r}")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parse(argv)
    try:
        plots = writable_dir(args.plots or Path("sweep")) if args.sweep else None
        for target in (args.json, args.save_plan):
            if target is not None:
                writable_dir(target.parent)
                if target.is_dir():
                    raise IsADirectoryError(f"cannot write to {target}: it is a folder. Name a file")
        torch.set_num_threads(args.threads)
        machine = describe_machine()
        records: list[Record | KernelRecord] = []
        for name in args.case:
            records += run_kernel_case(args, machine) if name == KERNELS else run_case(name, args, machine, plots)
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
    print(f"{len(case.test)} test rows, used for nothing else", flush=True)
    plan = None if args.plan is None else dendrofx.Plan.load(args.plan)
    tune = args.tune_seconds if args.tune_seconds is not None else QUICK_TUNE if args.quick else TUNE
    asked = Asked(args.max_deviation, args.seed, args.light, args.gate, plan, tune)
    records = []
    for batch in args.batch or (QUICK_BATCHES if args.quick else BATCHES):
        prepared = prepare(case, batch, asked)
        print(f"\n--- {case.name}, batch {batch}\n\n{prepared.plan}\n", flush=True)
        record = run_table(Bench(prepared, batch, QUICK_SECONDS if args.quick else SECONDS, args.seed), args, machine)
        if plots is not None:
            write_sweep(record, plots, machine)
        records.append(record)
    if args.save_plan is not None:
        records[-1].prepared.plan.save(args.save_plan)
        print(f"wrote {args.save_plan}")
    return records


def run_table(bench: Bench, args: argparse.Namespace, machine: dict[str, str]) -> Record:
    """One table, and what else was asked for."""
    variants = build_variants(bench.prepared, args.seed)
    record = bench.measure(variants)
    print(f"{table(record)}\n\n{footer(record, machine, args.seed)}\n", flush=True)
    if args.ablation:
        record.ablation.extend(run_ablation(bench, variants))
        print(f"ablation, batch {bench.batch}\n\n{ablation_table(record.ablation)}\n", flush=True)
    if args.sweep:
        record.sweep.extend(run_sweep(bench, variants))
        print(f"sweep of the tolerance, batch {bench.batch}\n\n{sweep_table(record.sweep)}\n")
    return record


def run_kernel_case(args: argparse.Namespace, machine: dict[str, str]) -> list[KernelRecord]:
    """The case `kernels`."""
    records = run_kernels(args.quick, QUICK_SECONDS if args.quick else SECONDS, args.seed)
    print(
        f"\n=== kernels: one Linear, scripted and frozen\n\n{kernel_tables(records)}\n{machine_line(args.threads, machine)}\n"
    )
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


if __name__ == "__main__":
    sys.exit(main())
