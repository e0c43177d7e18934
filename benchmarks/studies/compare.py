"""What `python -m benchmarks.compare` prints and writes: a summary of each case; with `--verbose` every table and sentence."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

import dendrofx
from benchmarks.cases import CASES, CaseOptions
from benchmarks.command import writable_dir, writable_file, write_json
from benchmarks.peers.rows import build_peers
from benchmarks.studies import families, kernels
from benchmarks.studies.ablation import ablation_table, run_ablation
from dendrofx.compare.busy import run_busy
from dendrofx.compare.files import write_pictures, write_plans, wrote_line
from dendrofx.compare.prepare import Asked
from dendrofx.compare.records import Record
from dendrofx.compare.run import Effort, compare_case
from dendrofx.compare.summary import summary
from dendrofx.compare.sweep import sweep_table
from dendrofx.compare.tables import footer, table
from dendrofx.compare.text import machine_line
from dendrofx.compare.variants import peer_variants
from dendrofx.errors import InputError
from dendrofx.machine.capability import describe_machine
from dendrofx.machine.memory import keep_loaded

SECONDS, QUICK_SECONDS = 2.5, 0.5
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
    keep_loaded()
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
        wrote += write_plans(found, folder)
        if args.save_plan is not None:
            found[-1].prepared.plan.save(args.save_plan)
            wrote.append(args.save_plan)
        wrote += write_pictures(found, args.plots or folder, machine)
    figures = args.json or folder / "figures.json"
    write_json(figures, {"machine": machine, "cases": [r.to_json() for r in records]})
    print(f"\n{wrote_line([*wrote, figures])}\nMore: --verbose (controls, skills, memory, reasons)   --help")


def run_planless(name: str, args: argparse.Namespace, machine: Mapping[str, str]) -> Sequence[AnyRecord]:
    """Print the tables of `kernels` or of `hf`, which nothing is decided in."""
    records: Sequence[AnyRecord]
    if name == "kernels":
        records = found = kernels.run_kernels(args.quick, QUICK_SECONDS if args.quick else SECONDS, args.seed)
        title, text = "one Linear, scripted and frozen", kernels.kernel_tables(found)
    else:
        records = seen = families.run_families(args.quick)
        title, text = families.TITLE, families.family_table(seen)
    print(f"\n=== {name}: {title}\n\n{text}\n\n{machine_line(args.threads, machine)}")
    return records


def run_case(name: str, args: argparse.Namespace, machine: dict[str, str]) -> list[Record]:
    """Measure every table of one case; print them where all is asked for."""
    decides = args.budget is not None and args.budget.is_decision
    certified, sides = args.budget is not None, (args.user, args.item)
    case = CASES[name](CaseOptions(args.seed, args.quick, args.width, args.depth, certified, decides, *sides))
    if args.peers and not isinstance(case.calibration[0], Mapping):
        raise InputError(f"--peers are for cases whose inputs have names, such as minilm; {name} takes rows")
    peers, missing = build_peers(case, args.threads) if args.peers else ({}, {})
    plan = None if args.plan is None else dendrofx.Plan.load(args.plan)
    quick = 0.0 if case.lossless else QUICK_TUNE  # exact models are raced whole, which takes longer than their tables
    tune = args.tune_seconds if args.tune_seconds is not None else quick if args.quick else TUNE
    own = case.certified if args.max_deviation is None and plan is None else ""
    budget = args.budget or (dendrofx.Budget.parse(own) if own else None)
    given = (args.max_deviation, args.seed, args.light, args.gate, plan, tune, budget, args.scope, args.full)
    asked = Asked(*given, args.max_sample_deviation)
    sizes = args.batch or (case.quick_sizes if args.quick else case.batch_sizes)
    sweeps = args.sweep or not (args.no_sweep or args.quick)
    counts = args.verbose or not (args.quick or math.isfinite(case.most_seconds))  # a call more of each row
    effort = Effort(QUICK_SECONDS if args.quick else SECONDS, sweeps, args.seed, counts, args.exits)
    peers_found = peer_variants(peers, case)
    records = []
    for bench, variants, record in compare_case(case, asked, sizes, effort, peers_found, missing):
        if args.busy:
            record.busy.extend(run_busy(bench, variants))
        if args.ablation:
            record.ablation.extend(run_ablation(bench, variants))
        if args.verbose:
            print(full_text(record, machine, args.seed), flush=True)
        elif args.ablation:
            print(f"\nablation, batch {bench.batch}\n\n{ablation_table(record.ablation)}")
        records.append(record)
    return records


def full_text(record: Record, machine: Mapping[str, str], seed: int) -> str:
    """Return the plans, every row and sentence of a table, and what else was measured."""
    case, plans = record.prepared.case, record.prepared.plans
    order = f", {record.order}" if len(case.orders) > 1 else ""
    parts = [f"--- {case.name}, batch {record.batch}{order}"]
    parts += [f"{row}\n\n{made}" if len(plans) > 1 else str(made) for row, made in plans.items()]
    parts += [table(record), footer(record, machine, seed)]
    if record.ablation:
        parts.append(f"ablation, batch {record.batch}\n\n{ablation_table(record.ablation)}")
    if record.sweep:
        parts.append(f"sweep of the tolerance\n\n{sweep_table(record.sweep)}")
    return "\n" + "\n\n".join(parts)
