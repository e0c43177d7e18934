"""What transforming costs: seconds, and the memory that the process takes beyond that of the model loaded and called.

The peak is the kernel's own mark of the largest resident size (`VmHWM`, set back before each budget), so nothing samples beside
the timing. Libraries that a first transform loads are loaded before. The allocator decides how much of what was freed stays with
the process, so peaks differ between runs, more than seconds do. Needs Linux.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tabulate import tabulate
from torch import nn

import dendrofx
from benchmarks.cases import CASES, CaseOptions
from benchmarks.command import writable_file, write_json
from dendrofx.compare.case import Case
from dendrofx.compare.text import machine_line
from dendrofx.graph.capture import capture
from dendrofx.machine.capability import describe_machine
from dendrofx.machine.memory import collect_garbage
from dendrofx.values.inputs import Inputs

STATUS, MARK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Footprint:
    """What one budget costs.

    Attributes:
        max_deviation: the budget.
        seconds: of `transform` and `script`.
        peak_mb, kept_mb: at most meanwhile, and afterwards, beyond the model loaded and called.
        weights_mb: of the model's parameters.
        batch: samples per call that the decision was for.
        routed: sites.
    """

    max_deviation: float
    seconds: float
    peak_mb: float
    kept_mb: float
    weights_mb: float
    batch: int
    routed: int


def memory(name: str) -> float:
    """Return `VmRSS` or `VmHWM` of this process, MB."""
    (line,) = [row for row in STATUS.read_text(encoding="ascii").splitlines() if row.startswith(f"{name}:")]
    return int(line.split()[1]) * 1024 / 1e6


def load_libraries() -> None:
    """Transform something small by the way that real models take."""
    batches = [torch.randn(8, 16) for _ in range(8)]
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4)).eval()
    quick = dendrofx.Options(tune_seconds=1.0)
    routed = dendrofx.transform(model, calibration=batches, budget=0.5, batch_sizes=[8], options=quick)
    dendrofx.script(routed, freeze=True)
    capture(model, Inputs.of(batches[0]), shapes=True)


def measure(case: Case, max_deviation: float, batch: int, seed: int) -> Footprint:
    """Transform and script the case's model once."""
    collect_garbage()
    before = memory("VmRSS")
    MARK.write_text("5", encoding="ascii")  # sets VmHWM back
    started = time.perf_counter()
    routed = dendrofx.transform(
        case.model,
        calibration=case.calibration,
        budget=max_deviation,
        dead_rows=case.dead_rows,
        batch_sizes=[batch],
        options=dendrofx.Options(seed=seed),
    )
    scripted = dendrofx.script(routed)
    seconds = time.perf_counter() - started
    peak = memory("VmHWM")
    collect_garbage()
    kept = memory("VmRSS")
    del scripted  # which is kept as well
    weights = sum(p.numel() * p.element_size() for p in case.model.parameters()) / 1e6
    return Footprint(max_deviation, seconds, peak - before, kept - before, weights, batch, len(routed.plan.routed))


def table(found: Sequence[Footprint]) -> str:
    """Return the table as text."""
    rows = [
        [
            f"{f.max_deviation:g}",
            f.batch,
            f.routed,
            f.seconds,
            f.weights_mb,
            f.peak_mb,
            f.peak_mb / f.weights_mb,
            f.kept_mb,
        ]
        for f in found
    ]
    headers = ["budget", "batch", "routed sites", "seconds", "weights MB", "peak MB", "peak / weights", "kept MB"]
    return tabulate(rows, headers=headers, floatfmt=["g", "g", "g", ".1f", ".0f", ".0f", ".2f", ".0f"])


def run(args: argparse.Namespace) -> None:
    """Print the table of a case, a line per budget."""
    if not MARK.exists():
        raise OSError("needs Linux, /proc/self/clear_refs")
    writable_file(args.json)
    case = CASES[args.case[0]](CaseOptions(seed=args.seed))
    load_libraries()
    with torch.no_grad():
        Inputs.of(case.calibration[0]).call(case.model)
    budgets = args.budgets or case.budgets or (0.01,)
    found = [measure(case, budget, args.batch, args.seed) for budget in budgets]
    machine = describe_machine()
    print(f"{case.title}\n\n{table(found)}\n\n{machine_line(torch.get_num_threads(), machine)}")
    if args.json is not None:
        write_json(args.json, {"machine": machine, "cases": [asdict(f) for f in found]})
