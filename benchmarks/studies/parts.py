"""What a routed site costs against its own parts, each measured alone: the overhead of splitting, gathering and scattering.

    ideal = gate + full on the hard rows + the cheaper of light on all rows and light on the easy rows
    (a gate that reads the light branch leaves no choice: light on all rows)

`ideal / routed` is 1 when routing itself costs nothing. The first line of each table is tolerance 0: what a gate costs where
it saves nothing, as `routed / full`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor, nn

import dendrofx
from benchmarks.cases import CASES, CaseOptions
from dendrofx.compare import controls
from dendrofx.compare.text import machine_line, text_table
from dendrofx.graph.block import block_of
from dendrofx.graph.record import record_rows
from dendrofx.machine.capability import describe_machine
from dendrofx.machine.race import race
from dendrofx.rewriting.rewrite import Branches
from dendrofx.search.choose import scores
from dendrofx.search.verify import site_alone

ACTIVITIES = (1.0, 0.5, 0.3, 0.2, 0.1, 0.05)
SECONDS = 3.0
HEADERS = [
    "hard rows",
    "gate ms",
    "full ms",
    "light all ms",
    "light easy ms",
    "routed ms",
    "ideal / routed",
    "routed / full",
]


def frozen(module: nn.Module) -> torch.jit.ScriptModule:
    """Script and freeze one part."""
    return dendrofx.script(module.eval(), freeze=True)


@torch.no_grad()
def measure(block: nn.Sequential, branches: Branches, rows: Tensor, activity: float, seed: int) -> list[str]:
    """Return one line: the parts and the routed site at one activity."""
    score = scores(branches.gate_form, branches.gate, branches.light, rows)
    # about `activity` of the rows score at or above this, and are hard
    tolerance = 0.0 if activity == 1 else float(torch.quantile(score.double(), 1 - activity, interpolation="lower"))
    hard, easy = (~(score < tolerance)).nonzero().squeeze(1), (score < tolerance).nonzero().squeeze(1)
    full, light, routed = (
        frozen(block),
        frozen(branches.light),
        dendrofx.script(site_alone(block, branches, tolerance), freeze=True),
    )
    # views of as many rows: gathering them is routing's own cost, not the ideal's
    hard_rows, easy_rows = rows[: len(hard)], rows[: max(len(easy), 1)]
    calls: dict[str, Callable[[int], object]] = {
        "full": lambda _: full(rows),
        "hard": lambda _: full(hard_rows),
        "light": lambda _: light(rows),
        "easy": lambda _: light(easy_rows),
        "routed": lambda _: routed(rows),
    }
    reads_input = branches.gate_form.reads == "input"
    if reads_input:
        gate = frozen(branches.gate)
        calls["gate"] = lambda _: gate(rows)
    result = race(calls, SECONDS, seed)
    ms = {name: timing.p50 for name, timing in result.timings.items()}
    gate_ms = ms.get("gate", 0.0)
    light_ms = (0.0 if len(easy) == 0 else min(ms["light"], ms["easy"])) if reads_input else ms["light"]
    ideal = gate_ms + ms["hard"] + light_ms
    cells = [gate_ms, ms["full"], ms["light"], ms["easy"], ms["routed"]]
    share = f"{100 * len(hard) / len(rows):.0f} %"
    return [share, *[f"{c:.3g}" for c in cells], f"{ideal / ms['routed']:.2f}", f"{ms['routed'] / ms['full']:.2f}"]


def run(args: argparse.Namespace) -> None:
    """Print a table per routed site and number of rows."""
    torch.set_num_threads(args.threads)
    case = CASES[args.case[0]](CaseOptions(args.seed))
    options = dendrofx.Options(decide=False, seed=args.seed)
    routed = dendrofx.transform(case.model, calibration=case.calibration, budget=args.max_deviation, options=options)
    source = controls.recipe(routed)
    recorded = record_rows(source.captured, source.sites, case.test.batches(len(case.test)), args.seed).rows
    for site in source.sites:
        block, branches = block_of(source.captured, site.nodes), source.branches[site.name]
        for batch in args.batch:
            rows = recorded[site.name].repeat(-(-batch // len(recorded[site.name])), 1)[:batch]
            lines = [measure(block, branches, rows, activity, args.seed) for activity in ACTIVITIES]
            print(
                f"\n{case.name} {site.name} {site.shape}, {batch} rows: {branches.light_form}, {branches.gate_form}\n"
            )
            print(text_table(lines, HEADERS, named=False))
    print(f"\n{machine_line(args.threads, describe_machine())}")
