"""Do certificates hold? Violations of budgets over many draws of the calibration samples, on real models and data.

Light models and gates are fitted, and the path of settings fixed, on samples of their own. All others are the pool, whose own
mean loss at every setting is the truth. Each draw takes n samples from the pool with replacement, walks the path on them, and
takes the last setting that it accepts; a draw is a violation where the pool's risk there is above alpha. At most delta of all
draws may be, which of 200 at delta 0.05 is 10, and 15 or fewer in 95 of 100 runs.

No model runs in a draw: a setting's loss on a sample is the same in every draw.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from scipy.stats import binom
from tabulate import tabulate
from torch import Tensor, nn

from benchmarks.command import writable_file, write_json
from benchmarks.models import digits, minilm, text, tiara
from benchmarks.models.encoder import pad
from benchmarks.models.packages import CaseUnavailableError
from dendrofx.graph.capture import capture
from dendrofx.graph.find_sites import find_sites
from dendrofx.guarantee import Budget
from dendrofx.guarantee.sequence import fixed_sequence, tested_step
from dendrofx.guarantee.settings import pareto
from dendrofx.request import Request
from dendrofx.rewriting.dead_rows import drop_dead_rows
from dendrofx.search.cascade.models import ModelSpace
from dendrofx.search.cascade.priced import model_settings
from dendrofx.search.decide_models import most_cost
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


@dataclass(frozen=True)
class Pool:
    """A model, what its light models are fitted on, and the pool.

    Attributes:
        sets: batches that fit lights, that fit gates, and two that settings are searched on.
        pool: batches of all other samples, from other sources.
    """

    name: str
    model: nn.Module
    sets: tuple[Sequence[Any], Sequence[Any], Sequence[Any], Sequence[Any]]
    pool: Sequence[Any]
    dead_rows: str | None = None


@dataclass(frozen=True)
class Coverage:
    """One row of the table.

    Attributes:
        steps: of the path.
        violations: draws whose setting has a pool risk above alpha.
        allowed: what a fair coin of chance delta stays within in 95 of 100 runs.
        refused: draws in which not even the first step was accepted.
        median: pool risk of the setting of the median draw.
        following: pool risk of the step after that one; None at the end of the path, where nothing cheaper is left to take.
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


def digits_pool() -> Pool:
    """360 digits fit and search, the pool is 640 others."""
    images, _ = digits.load_data()
    others = images[digits.TRAIN :]
    parts = others.split([200, 80, 40, 40, len(others) - 360])
    return Pool("digits", digits.load_model(), ([parts[0]], [parts[1]], [parts[2]], [parts[3]]), [parts[4]])


def tiara_pool() -> Pool:
    """Whole FASTA records on one side: 15 % of them fit and search."""
    rows, record = tiara.load_fragments()
    place = torch.randperm(int(record.max()) + 1, generator=torch.Generator().manual_seed(0))[record] / (
        record.max() + 1
    )
    bounds = (0.0, 0.08, 0.11, 0.13, 0.15, 1.0)
    parts = [rows[(place >= low) & (place < high)] for low, high in pairwise(bounds)]
    return Pool(
        "tiara", tiara.load_model(), ([parts[0]], [parts[1]], [parts[2]], [parts[3]]), list(parts[4].split(512))
    )


def minilm_pool() -> Pool:
    """The encoder with its head: 480 sentences fit and search, the pool is 2000 of other documents."""
    _, others = minilm.load_data()
    mine, theirs = text.split(others, 480)
    ids = text.tokenize([s.text for s in mine])[:480]
    batches = [pad(ids[i : i + 32]) for i in range(0, len(ids), 32)]
    sets = batches[:6], batches[6:10], batches[10:12], batches[12:15]
    pool = sorted(text.tokenize([s.text for s in theirs])[:2000], key=len)
    return Pool(
        "minilm",
        minilm.load_classifier(),
        sets,
        [pad(pool[i : i + 64]) for i in range(0, len(pool), 64)],
        "attention_mask",
    )


POOLS: dict[str, Callable[[], Pool]] = {"tiara": tiara_pool, "minilm": minilm_pool, "digits": digits_pool}


@torch.no_grad()
def searched(pool: Pool) -> ModelSpace:
    """The models of cascades, a pool for their test set; what they take does not depend on the budget."""
    sets = [[Inputs.of(b) for b in part] for part in (*pool.sets, pool.pool)]
    captured = capture(pool.model, sets[0][0], shapes=True)
    form = captured.meta[CALL]
    fit, gate, choose, tune, test = ([form.plain(b) for b in part] for part in sets)
    data = Calibration(fit, gate, choose, tune, (32,), "", test)
    base = captured if pool.dead_rows is None else drop_dead_rows(captured, pool.dead_rows, fit[0])[0]
    subject = Subject(captured, base, find_sites(base), data)
    return ModelSpace.fitted(subject, Request(0.05), Budget("flip", 0.01), None)


def path_losses(models: ModelSpace, budget: Budget) -> Tensor | None:
    """f64[steps, pool]: the loss of every setting of the path on every sample of the pool; None where there is no path."""
    models = replace(models, budget=budget)
    path = [] if models.missing else pareto(model_settings(models, None), most_cost(models.request))
    return torch.stack([s.source.losses_at(s.tolerances[CASCADE], 1)[0] for s in path]) if path else None


def coverage(pool: str, losses: Tensor, budget: Budget, n: int, draws: int) -> Coverage:
    """Walk a path on many draws."""
    truth, generator = losses.mean(1), torch.Generator().manual_seed(0)
    last: list[int] = []
    test = partial(tested_step, budget=budget)
    for _ in range(draws):
        index = torch.randint(losses.size(1), (n,), generator=generator)
        last.append(sum(t.accepted for t in fixed_sequence(losses[:, index].unbind(0), test)))
    risks = [float(truth[count - 1]) if count else 0.0 for count in last]
    violations = sum(r > budget.limit for r in risks)
    middle = sorted(range(draws), key=lambda i: risks[i])[draws // 2]
    after = float(truth[last[middle]]) if last[middle] < len(truth) else None
    allowed = int(binom.ppf(0.95, draws, budget.delta))
    return Coverage(
        pool, budget.name, budget.limit, budget.delta, n, losses.size(1), len(losses), draws, violations, allowed,
        last.count(0), risks[middle], after, None if after is None else budget.p_value(after * n, n),
    )  # fmt: skip


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
    models = searched(POOLS[name]())
    for metric, alpha, delta, n in TRIPLES:
        budget = Budget(metric, alpha, 1 - delta)
        losses = path_losses(models, budget)
        if losses is None:
            print(f"{name}, {budget}: nothing is predicted to be faster than the original", file=sys.stderr)
            continue
        row = coverage(name, losses, budget, n, draws)
        print(f"{name}, {budget}: {row.violations} violations", file=sys.stderr, flush=True)
        yield row
