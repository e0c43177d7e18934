"""The tables of `python -m benchmarks.compare`, and what else it was asked for."""

from __future__ import annotations

import argparse
import csv
import io
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
from benchmarks.studies.sweep import run_sweep, sweep_table
from dendrofx.compare.bench import Bench
from dendrofx.compare.prepare import Asked, prepare
from dendrofx.compare.records import Record
from dendrofx.compare.tables import footer, table
from dendrofx.compare.text import machine_line
from dendrofx.compare.variants import Variant, build_variants, peer_variants
from dendrofx.errors import InputError
from dendrofx.machine.capability import describe_machine
from dendrofx.machine.files import write_whole

SECONDS, QUICK_SECONDS = 4.0, 0.5
TUNE, QUICK_TUNE = 60.0, 5.0
AnyRecord = Record | kernels.KernelRecord | families.FamilyRecord


def run(args: argparse.Namespace) -> None:
    """Print the tables of every case, and write what is to be written."""
    plots = writable_dir(args.plots or Path("sweep")) if args.sweep else None
    writable_file(args.json)
    writable_file(args.save_plan)
    torch.set_num_threads(args.threads)
    machine = describe_machine()
    records: list[AnyRecord] = []
    for name in args.case:
        if name in CASES:
            records += run_case(name, args, machine, plots)
        else:
            records += run_planless(name, args, machine)
    if args.json is not None:
        write_json(args.json, {"machine": machine, "cases": [r.to_json() for r in records]})
        print(f"wrote {args.json}")


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


def run_case(name: str, args: argparse.Namespace, machine: dict[str, str], plots: Path | None) -> list[Record]:
    """Print every table of one case."""
    decides = args.budget is not None and args.budget.is_decision
    case = CASES[name](CaseOptions(args.seed, args.quick, args.width, args.depth, args.budget is not None, decides))
    print(f"\n=== {case.name}: {case.title}", flush=True)
    print(f"{len(case.test)} test samples, used for nothing else", flush=True)
    if args.peers and case.dead_rows is None:
        raise InputError(f"--peers are for cases that take tokens, such as minilm; {name} takes rows")
    peers, missing = build_peers(case, args.threads) if args.peers else ({}, {})
    plan = None if args.plan is None else dendrofx.Plan.load(args.plan)
    tune = args.tune_seconds if args.tune_seconds is not None else QUICK_TUNE if args.quick else TUNE
    asked = Asked(args.max_deviation, args.seed, args.light, args.gate, plan, tune, args.budget, args.scope, args.full)
    records = []
    for batch in args.batch or (case.quick_sizes if args.quick else case.batch_sizes):
        prepared = prepare(case, batch, asked)
        for row, made in prepared.plans.items():
            of = f", {row}" if len(prepared.plans) > 1 else ""
            print(f"\n--- {case.name}, batch {batch}{of}\n\n{made}\n", flush=True)
        variants = {**build_variants(prepared, args.seed), **peer_variants(peers, case)}
        for order in case.orders:
            bench = Bench(prepared, batch, QUICK_SECONDS if args.quick else SECONDS, args.seed, order)
            record = run_table(bench, variants, missing, args, machine)
            if record.sweep and plots is not None:
                write_sweep(record, plots, machine)
            records.append(record)
    if args.save_plan is not None:
        records[-1].prepared.plan.save(args.save_plan)
        print(f"wrote {args.save_plan}")
    return records


def run_table(
    bench: Bench,
    variants: Mapping[str, Variant],
    missing: Mapping[str, str],
    args: argparse.Namespace,
    machine: dict[str, str],
) -> Record:
    """Print one table, and what else was asked for."""
    record = bench.measure(variants, missing)
    if len(bench.prepared.case.orders) > 1:
        print(f"samples in {bench.order} order\n")
    print(f"{table(record)}\n\n{footer(record, machine, args.seed)}\n", flush=True)
    if args.ablation:
        record.ablation.extend(run_ablation(bench, variants))
        print(f"ablation, batch {bench.batch}\n\n{ablation_table(record.ablation)}\n", flush=True)
    if args.sweep and bench.prepared.routed.plan.routed:
        record.sweep.extend(run_sweep(bench, variants))
        print(f"sweep of the tolerance, batch {bench.batch}\n\n{sweep_table(record.sweep)}\n")
    return record


def write_sweep(record: Record, folder: Path, machine: dict[str, str]) -> None:
    """Write CSV and plots of one sweep."""
    from dendrofx.compare.plots import plot_sweep, png  # matplotlib is slow to import and only needed here

    order = "" if len(record.prepared.case.orders) == 1 else f"-{record.order}"
    stem = f"{record.prepared.case.name}-b{record.batch}-t{record.threads}{order}"
    write_whole(folder / f"{stem}.csv", _csv(record.sweep))
    for kind, figure in plot_sweep(record, machine["cpu"]).items():
        write_whole(folder / f"{stem}-{kind}.png", png(figure))
    print(f"wrote {folder / stem}.csv, -activity.png and -compute.png\n")


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
