"""Does routing beat one light form on every row? The same search over many seeds.

A seed decides which calibration samples fit, search and test. At each, what the search picks for a budget races the fastest mix of
light forms, the same on every row and without a gate, that the same search certifies for it in the same time. Both run on samples
that served neither. What is refused counts as the original, 1.00 x.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import torch
from torch import nn

import dendrofx
from benchmarks.cases import CASES, CaseOptions
from benchmarks.command import writable_file, write_json
from dendrofx.compare import controls
from dendrofx.compare.case import Case
from dendrofx.compare.text import machine_line, text_table
from dendrofx.guarantee import Budget
from dendrofx.machine.capability import describe_machine
from dendrofx.machine.race import race
from dendrofx.rewriting.module import RoutedModule
from dendrofx.search.remembered import Remembered, remembering
from dendrofx.values.inputs import Inputs

RACE_SECONDS = 2.0
SCRIPTED, AGAIN, ROUTED, STATIC = "scripted", "scripted again", "routed", "one mix"


@dataclass(frozen=True)
class Drawn:
    """One seed.

    Attributes:
        routed, static: speed over the scripted original's; again: the original's over its own.
        lost: mean loss of the held-out samples, routed and static.
        what: was picked, in words.
    """

    budget: str
    batch: int
    seed: int
    routed: float
    static: float
    again: float
    lost: tuple[float, float]
    what: str

    @property
    def ratio(self) -> float:
        """Routed over static."""
        return self.routed / self.static

    def __str__(self) -> str:
        figures = f"{self.routed:.2f} x, one mix {self.static:.2f} x, A/A {self.again:.2f}"
        return f"seed {self.seed}, {self.budget}, batch {self.batch}: {figures}; {self.what}"


def drawn(case: Case, budget: str, batch: int, seed: int, tune_seconds: float) -> Drawn:
    """Search twice and race what was found."""
    asked: dict[str, Any] = {
        "calibration": case.calibration,
        "budget": budget,
        "dead_rows": case.dead_rows,
        "batch_sizes": [batch],
        "options": dendrofx.Options(seed=seed, tune_seconds=tune_seconds),
    }
    routed = dendrofx.transform(case.model, **asked)
    static = dendrofx.transform(case.model, scope="model", gate=dendrofx.AlwaysLight(), **asked)
    batches = [b for b in case.test.batches(batch) if b.samples == batch]
    calls: dict[str, nn.Module] = {SCRIPTED: case.model, AGAIN: case.model}
    calls |= {ROUTED: routed} if routed.plan.rewrites else {}
    calls |= {STATIC: controls.alone(static)} if static.plan.rewrites else {}
    p50 = timed(calls, batches)
    one, two, again = (p50[SCRIPTED] / p50.get(name, p50[SCRIPTED]) for name in (ROUTED, STATIC, AGAIN))
    lost = mean_loss(case, routed, budget), mean_loss(case, static, budget)
    return Drawn(budget, batch, seed, one, two, again, lost, picked(routed))


def timed(modules: dict[str, nn.Module], batches: Sequence[Inputs]) -> dict[str, float]:
    """Return median ms of modules, scripted and frozen, in turns."""

    def call(module: nn.Module) -> Callable[[int], object]:
        made = dendrofx.script(module, freeze=True)
        return lambda number: batches[number % len(batches)].call(made)

    with torch.no_grad():
        result = race({name: call(module) for name, module in modules.items()}, RACE_SECONDS)
    return {name: timing.p50 for name, timing in result.timings.items()}


@torch.no_grad()
def mean_loss(case: Case, module: nn.Module, budget: str) -> float:
    """Return what held-out samples lose on average."""
    kept, lost = Budget.parse(budget), []
    for batch in case.test.batches(256):
        lost.append(kept.losses(batch.call(case.model), batch.call(module)))
    return float(torch.cat(lost).mean())


def picked(module: RoutedModule) -> str:
    """Say what the search picked."""
    plan = module.plan
    if not plan.rewrites:
        return f"refused: {plan.refusal}"
    found = plan.cascade
    if found is None or found.status != "routed":
        return "rows of blocks"
    then = f", then {found.found}" if found.found else ""
    return f"{found.light} with {found.gate}{then}"


def summary(found: Sequence[Drawn]) -> str:
    """Return a line per budget and batch size: medians over the seeds, and how far the middle half of the ratios reaches.

    Of what is lost and refused the first figure is routed's, the second the mix's.
    """
    cells = dict.fromkeys((d.budget, d.batch) for d in found)
    rows = [[*map(str, cell), *figures([d for d in found if (d.budget, d.batch) == cell])] for cell in cells]
    heads = ["budget", "batch", ROUTED, STATIC, "A/A", "ratio", "quartiles", "lost %", "refused"]
    return text_table(rows, heads)


def figures(cell: Sequence[Drawn]) -> list[str]:
    """Return a line's figures."""
    speeds = [statistics.median(column) for column in zip(*((d.routed, d.static, d.again) for d in cell), strict=True)]
    ratios = [d.ratio for d in cell]
    low, middle, high = statistics.quantiles(ratios, n=4) if len(cell) > 1 else ratios * 3
    lost = " ".join(f"{100 * statistics.mean(d.lost[i] for d in cell):.2g}" for i in (0, 1))
    refused = f"{sum(d.routed == 1.0 for d in cell)} {sum(d.static == 1.0 for d in cell)}"
    return [*(f"{x:.2f}" for x in (*speeds, middle)), f"{low:.2f}-{high:.2f}", lost, refused]


def searched(case: Case, args: argparse.Namespace) -> Iterator[Drawn]:
    """Yield every seed of every budget and batch size, a line each on the way."""
    for seed in range(args.seeds):
        with remembering(Remembered()):  # forms are fitted once
            for budget, batch in product(args.budget, args.batch):
                found = drawn(case, budget, batch, seed, args.tune_seconds)
                print(found, file=sys.stderr, flush=True)
                yield found


def run(args: argparse.Namespace) -> None:
    """Print the table of a case."""
    writable_file(args.json)
    for budget in args.budget:
        Budget.parse(budget)
    case = CASES[args.case[0]](CaseOptions(certified=True, decides=True))
    found = list(searched(case, args))
    machine = describe_machine()
    print(f"{case.title}; {args.seeds} seeds\n\n{summary(found)}\n\n{machine_line(torch.get_num_threads(), machine)}")
    if args.json is not None:
        write_json(args.json, {"machine": machine, "seeds": [asdict(d) for d in found]})
