"""What `python -m benchmarks.compare` prints and writes: a summary of each case; with `--verbose` every table and sentence."""

from __future__ import annotations

import argparse
import csv
import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import dendrofx
from benchmarks.cases import CASES, CaseOptions
from benchmarks.command import writable_dir, writable_file, write_json
from benchmarks.peers.rows import build_peers
from benchmarks.studies import families, kernels
from benchmarks.studies.ablation import ablation_table, run_ablation
from dendrofx.compare.sweep import run_sweep, sweep_table
from dendrofx.compare.bench import Bench
from dendrofx.compare.prepare import Asked, prepare
from dendrofx.compare.records import Record
from dendrofx.compare.summary import summary
from dendrofx.compare.tables import footer, table
from dendrofx.compare.text import machine_line
from dendrofx.compare.variants import Variant, build_variants, peer_variants
from dendrofx.errors import InputError
from dendrofx.machine.capability import describe_machine
from dendrofx.machine.files import write_whole
from dendrofx.machine.progress import progress, within

SECONDS, QUICK_SECONDS = 4.0, 0.5
TUNE, QUICK_TUNE = 60.0, 5.0
AnyRecord = Record | kernels.KernelRecord | families.FamilyRecord


def run(args: argparse.Namespace) -> None:
    """Compare every case, print what became of it, and write what is to be written."""
    folder = writable_dir(args.out)
    if args.plots is not None:
        writable_dir(args.plots)
    for file in (args.json, args.save_plan):
        writable_file(file)
    torch.set_num_threads(args.threads)
    machine = describe_machine()
    records: list[AnyRecord] = []
    wrote: list[Path] = []
    for name in args.case:
        if name not in CASES:
            records += run_planless(name, args, machine)
            continue
        found = run_case(name, args, machine)
        records += found
        print(f"\n{summary(found, machine)}", flush=True)
        wrote += write_files(found, args, folder, machine)
    figures = args.json or folder / "figures.json"
    write_json(figures, {"machine": machine, "cases": [r.to_json() for r in records]})
    print(f"\n{wrote_line([*wrote, figures])}\nMore: --verbose (controls, skills, memory, reasons)   --help")


def wrote_line(paths: Sequence[Path]) -> str:
    """Return what was written, by folder, in lines that fit."""
    folders: dict[Path, list[str]] = {}
    for path in dict.fromkeys(paths):
        folders.setdefault(path.parent, []).append(path.name)
    text = "Wrote " + "; ".join(f"{folder}/: {', '.join(names)}" for folder, names in folders.items())
    return textwrap.fill(text, 100, subsequent_indent="  ", break_on_hyphens=False)


def run_planless(name: str, args: argparse.Namespace, machine: Mapping[str, str]) -> Sequence[AnyRecord]:
    """Print the tables of `kernels` or of `hf`, which nothing is decided in."""
    records: Sequence[AnyRecord]
    if name == "kernels":
        records = found = kernels.run_kernels(args.quick, QUICK_SECONDS if args.quick else SECONDS, args.seed)
        title, text = "one Linear, scripted and frozen", kernels.kernel_tables(found)
    else:
        records = seen = families.run_families(args.quick)
        title, text = families.TITLE, families.family_table(seen)
    print(f"\n=== {name}: {title}\n\n{text}\n{machine_line(args.threads, machine)}\n")
    return records


def run_case(name: str, args: argparse.Namespace, machine: dict[str, str]) -> list[Record]:
    """Measure every table of one case; print them where all is asked for."""
    decides = args.budget is not None and args.budget.is_decision
    case = CASES[name](CaseOptions(args.seed, args.quick, args.width, args.depth, args.budget is not None, decides))
    if args.peers and case.dead_rows is None:
        raise InputError(f"--peers are for cases that take tokens, such as minilm; {name} takes rows")
    peers, missing = build_peers(case, args.threads) if args.peers else ({}, {})
    plan = None if args.plan is None else dendrofx.Plan.load(args.plan)
    tune = args.tune_seconds if args.tune_seconds is not None else QUICK_TUNE if args.quick else TUNE
    asked = Asked(args.max_deviation, args.seed, args.light, args.gate, plan, tune, args.budget, args.scope, args.full)
    sizes = args.batch or (case.quick_sizes if args.quick else case.batch_sizes)
    records = []
    for number, batch in enumerate(sizes, 1):
        with within(f"{case.name}, batch {batch} ({number} of {len(sizes)})"):
            prepared = prepare(case, batch, asked)
            variants = {**build_variants(prepared, args.seed), **peer_variants(peers, case)}
            for order in progress(case.orders, "measuring", "order"):
                bench = Bench(prepared, batch, QUICK_SECONDS if args.quick else SECONDS, args.seed, order)
                records.append(run_table(bench, variants, missing, args, machine))
    return records


def run_table(
    bench: Bench,
    variants: Mapping[str, Variant],
    missing: Mapping[str, str],
    args: argparse.Namespace,
    machine: dict[str, str],
) -> Record:
    """Measure one table, its sweep and its ablation; print them where all is asked for."""
    record = bench.measure(variants, missing)
    if args.ablation:
        record.ablation.extend(run_ablation(bench, variants))
    sweeps = args.sweep or not (args.no_sweep or args.quick)
    if sweeps and bench.prepared.routed.plan.routed and not bench.prepared.refused:
        record.sweep.extend(run_sweep(bench, variants))
    if args.verbose:
        print(full_text(record, machine, args.seed), flush=True)
    elif args.ablation:
        print(f"\nablation, batch {bench.batch}\n\n{ablation_table(record.ablation)}")
    return record


def full_text(record: Record, machine: Mapping[str, str], seed: int) -> str:
    """Return the plans, every row and sentence of a table, and what else was measured."""
    case, plans = record.prepared.case, record.prepared.plans
    order = f", samples in {record.order} order" if len(case.orders) > 1 else ""
    parts = [f"--- {case.name}, batch {record.batch}{order}"]
    parts += [f"{row}\n\n{made}" if len(plans) > 1 else str(made) for row, made in plans.items()]
    parts += [table(record), footer(record, machine, seed)]
    if record.ablation:
        parts.append(f"ablation, batch {record.batch}\n\n{ablation_table(record.ablation)}")
    if record.sweep:
        parts.append(f"sweep of the tolerance\n\n{sweep_table(record.sweep)}")
    return "\n" + "\n\n".join(parts)


def write_files(
    records: Sequence[Record], args: argparse.Namespace, folder: Path, machine: dict[str, str]
) -> list[Path]:
    """Write one case's plans, and its sweeps with their pictures; return the files."""
    name, wrote = records[-1].prepared.case.name, []
    for record in {r.batch: r for r in records}.values():
        plan = folder / f"{name}-plan-b{record.batch}.json"
        record.prepared.plan.save(plan)
        wrote.append(plan)
    if args.save_plan is not None:
        records[-1].prepared.plan.save(args.save_plan)
        wrote.append(args.save_plan)
    swept = [r for r in records if r.sweep]
    if swept:
        wrote += write_pictures(swept, writable_dir(args.plots or folder), machine)
    return wrote


def write_pictures(records: Sequence[Record], folder: Path, machine: dict[str, str]) -> list[Path]:
    """Write what the sweeps of one case show: CSV, activity and compute of each, and the trade-off of all of them."""
    from dendrofx.compare import plots  # matplotlib is slow to import and only needed here
    from dendrofx.compare.tradeoff import plot_tradeoff

    case, wrote = records[0].prepared.case, {}
    for record in records:
        order = "" if len(case.orders) == 1 else f"-{record.order}"
        stem = f"{case.name}-b{record.batch}-t{record.threads}{order}"
        wrote[folder / f"{stem}.csv"] = _csv(record.sweep).encode()
        for kind, figure in plots.plot_sweep(record, machine["cpu"]).items():
            wrote[folder / f"{stem}-{kind}.png"] = plots.png(figure)
    wrote[folder / f"{case.name}-tradeoff.png"] = plots.png(plot_tradeoff(records, machine["cpu"]))
    for path, data in wrote.items():
        write_whole(path, data)
    return [path for path in wrote if path.suffix == ".png" and "tradeoff" in path.name] + [
        folder / f"{case.name}-*.csv"
    ]


def _csv(points: Sequence[Any]) -> str:
    rows = [
        {k: v for k, v in p.items() if not isinstance(v, dict)}
        | {f"{k}_{inner}": v for k, d in p.items() if isinstance(d, dict) for inner, v in d.items()}
        for p in points
    ]
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()
