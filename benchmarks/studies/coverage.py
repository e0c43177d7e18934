"""Do certificates hold? Violations of budgets over many draws of the calibration samples, on real models and data.

Branches, heads and gates are fitted, and the paths of settings fixed, on samples of their own, as a search on a budget alone does
it (`scope="auto"`: blocks, light models, exits). All others are the pool, whose own mean loss at every setting is the truth. Each
draw takes n samples from the pool with replacement and walks the paths on them. Any setting that it accepts may be taken; a draw is
a violation where the pool's risk at one of them is above alpha. At most delta of all draws may be, which of 200 at delta 0.05 is
10, and 15 or fewer in 95 of 100 runs.

No model runs in a draw: a setting's loss on a sample is the same in every draw.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import torch
from scipy.stats import binom
from tabulate import tabulate
from torch import Tensor

from benchmarks.command import writable_file, write_json
from benchmarks.models.packages import CaseUnavailableError
from benchmarks.studies.pools import POOLS, Pool
from dendrofx.graph.capture import capture
from dendrofx.graph.find_sites import find_sites
from dendrofx.guarantee import Budget
from dendrofx.guarantee.path import paths
from dendrofx.guarantee.sequence import fixed_sequence, tested_step
from dendrofx.guarantee.settings import Setting
from dendrofx.request import Request
from dendrofx.rewriting.dead_rows import drop_dead_rows
from dendrofx.search import decide_blocks
from dendrofx.search.block_settings import test_seen
from dendrofx.search.cascade.models import ModelSpace
from dendrofx.search.cascade.priced import model_settings
from dendrofx.search.decide_models import most_cost
from dendrofx.search.families import Blocks
from dendrofx.search.remembered import Remembered, remembering
from dendrofx.subject import Subject
from dendrofx.values.calibration import Calibration
from dendrofx.values.counts import CASCADE
from dendrofx.values.inputs import Inputs
from dendrofx.values.meta import CALL

# Metric, alpha, delta and samples of a draw.
TRIPLES: tuple[tuple[str, float, float, int], ...] = (
    ("flip", 0.01, 0.05, 673),
    ("flip", 0.02, 0.10, 400),
    ("flip", 0.05, 0.05, 2000),
    ("deviation", 0.02, 0.05, 2000),
    ("deviation", 0.05, 0.10, 500),
    ("exceeds(0.05)", 0.05, 0.05, 2000),
    ("cosine", 0.005, 0.05, 2000),
)

# The risk where nothing is accepted and the original runs: below every other.
REFUSED = -1.0


@dataclass(frozen=True)
class Coverage:
    """One row of the table.

    Attributes:
        steps: of the paths.
        violations: draws that accept a setting whose pool risk is above alpha.
        allowed: what a fair coin of chance delta stays within in 95 of 100 runs.
        refused: draws in which not even the first step was accepted.
        median: pool risk of the cheapest setting that the median draw accepts.
        following: pool risk of the step after that one; None at the end of its path, where nothing cheaper is left to take.
        p_value: what n samples would say of it if they lost as the pool does; above delta it is out of their reach.
    """

    case: str
    metric: str
    alpha: float
    delta: float
    n: int
    pool: int
    steps: int
    draws: int
    violations: int
    allowed: int
    refused: int
    median: float
    following: float | None
    p_value: float | None


@dataclass(frozen=True)
class Walk:
    """A path, safest step first.

    Attributes:
        losses: f64[steps, pool], of every step on every sample of the pool.
        costs: of the steps.
    """

    losses: Tensor
    costs: tuple[float, ...]


def subject_of(pool: Pool) -> Subject:
    """The model with its samples, the pool for its test set."""
    sets = [[Inputs.of(b) for b in part] for part in (*pool.sets, pool.pool)]
    captured = capture(pool.model, sets[0][0], shapes=True)
    form = captured.meta[CALL]
    fit, gate, choose, tune, test = ([form.plain(b) for b in part] for part in sets)
    data = Calibration(fit, gate, choose, tune, (32,), "", test)
    base = captured if pool.dead_rows is None else drop_dead_rows(captured, pool.dead_rows, fit[0])[0]
    return Subject(captured, base, find_sites(base), data)


@torch.no_grad()
def walks(pool: Pool, subject: Subject, budget: Budget, n: int) -> list[Walk]:
    """The paths of a budget that is to be shown on n samples."""
    assert subject.data is not None
    request = Request(0.05, budget=budget, scope="auto")
    models, owner = ModelSpace.fitted(subject, request, budget, None), {}
    found = [] if models.missing else model_settings(models, None)
    if pool.blocks:
        space, raced = decide_blocks.search(subject, request, None)
        blocks = Blocks(space, raced, budget, None)
        routed = blocks.settings()
        owner, found = {id(s.source): blocks for s in routed}, [*found, *routed]
    samples = subject.data.samples
    made = []
    for path in paths(found, most_cost(request), budget, n, samples[2] + samples[3]):
        rows = [pool_losses(s, owner.get(id(s.source))) for s in path]
        made.append(Walk(torch.stack(rows), tuple(s.cost for s in path)))
    return made


def pool_losses(setting: Setting, blocks: Blocks | None) -> Tensor:
    """What every sample of the pool loses at a setting, f64[N]."""
    if blocks is None:
        losses: Tensor = setting.source.losses_at(setting.tolerances[CASCADE], 1)[0]
        return losses
    return test_seen(blocks.space, blocks.budget, setting, blocks.references).losses[:, 0]


def coverage(pool: str, found: Sequence[Walk], budget: Budget, n: int, draws: int) -> Coverage:
    """Walk the paths on many draws."""
    truth, generator = [walk.losses.mean(1) for walk in found], torch.Generator().manual_seed(0)
    size = found[0].losses.size(1)
    taken: list[tuple[float, float | None]] = []
    violations = 0
    test = partial(tested_step, budget=budget)
    for _ in range(draws):
        index = torch.randint(size, (n,), generator=generator)
        counts = [sum(t.accepted for t in fixed_sequence(w.losses[:, index].unbind(0), test)) for w in found]
        violations += any(
            bool((risks[:count] > budget.limit).any()) for risks, count in zip(truth, counts, strict=True)
        )
        taken.append(_taken(found, truth, counts))
    risk, after = sorted(taken, key=lambda t: t[0])[draws // 2]
    return Coverage(
        pool, budget.name, budget.limit, budget.delta, n, size, sum(len(w.costs) for w in found), draws, violations,
        int(binom.ppf(0.95, draws, budget.delta)), sum(r < 0 for r, _ in taken), max(risk, 0.0), after,
        None if after is None else budget.p_value(after * n, n),
    )  # fmt: skip


def _taken(found: Sequence[Walk], truth: Sequence[Tensor], counts: Sequence[int]) -> tuple[float, float | None]:
    """Return the pool's risk at the cheapest accepted setting and at the one after it; the risk is `REFUSED` where none is."""
    last = [(w.costs[c - 1], float(r[c - 1]), r[c:]) for w, r, c in zip(found, truth, counts, strict=True) if c]
    if not last:
        return REFUSED, float(truth[0][0])
    _, risk, rest = min(last, key=lambda known: known[0])
    return risk, float(rest[0]) if len(rest) else None


def table(rows: Sequence[Coverage]) -> str:
    """As text."""
    lines = [
        [
            r.case, r.metric, f"{r.alpha:g}", f"{r.delta:g}", str(r.n), str(r.pool), str(r.steps), f"{r.violations} of {r.draws}",
            str(r.allowed), str(r.refused), f"{r.median:.4g}", f"{r.median / r.alpha:.2f}",
            "-" if r.following is None else f"{r.following:.4g}",
            "-" if r.p_value is None else f"{r.p_value:.2g}",
        ]
        for r in rows
    ]  # fmt: skip
    headers = [
        "case", "metric", "alpha", "delta", "n", "pool", "steps", "violations", "allowed", "refused", "median risk", "/ alpha",
        "next step", "its p",
    ]  # fmt: skip
    return tabulate(lines, headers=headers, tablefmt="github", disable_numparse=True)


def run(args: argparse.Namespace) -> None:
    """Print the table of all cases; one that is not there is named and left out."""
    writable_file(args.json)
    rows: list[Coverage] = []
    for name in args.case:
        try:
            rows += case_rows(name, args.draws)
        except CaseUnavailableError as error:
            print(f"{name}: {error}", file=sys.stderr)
    print(table(rows))
    if args.json is not None:
        write_json(args.json, [asdict(r) for r in rows])


def case_rows(name: str, draws: int) -> Iterator[Coverage]:
    """Measure a case with every budget that has a path."""
    pool = POOLS[name]()
    subject = subject_of(pool)
    with remembering(Remembered()):  # forms are fitted once
        for metric, alpha, delta, n in TRIPLES:
            budget = Budget(metric, alpha, 1 - delta)
            found = walks(pool, subject, budget, n)
            if not found:
                print(f"{name}, {budget}: nothing is predicted to be faster than the original", file=sys.stderr)
                continue
            row = coverage(name, found, budget, n, draws)
            print(f"{name}, {budget}: {row.violations} violations", file=sys.stderr, flush=True)
            yield row
