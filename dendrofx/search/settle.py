"""Settle a choice: tolerances that keep the budget, and no site that does not pay.

calibrate    one multiplier for all tolerances, walked on rows that were used for nothing yet
review       refuse the sites that do not pay, and calibrate again

Sites interact, in their errors and in their times: so the budget's share to choose at is tried on the model's output.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor

from dendrofx.gates.controls import NoGate
from dendrofx.graph.sites import Site
from dendrofx.guarantee.losses import Seen, reference_picks, seen
from dendrofx.machine.progress import progress
from dendrofx.plan.tail import TailPlan
from dendrofx.rewriting.module import RoutedModule
from dendrofx.rewriting.recipe import Recipe
from dendrofx.rewriting.tolerances import tolerances
from dendrofx.search.blocks import BUDGET_SHARES, BlockSpace
from dendrofx.search.calibrate import STEPS, Outcome, Step, apply_multiplier, multiplier_grid, start_of, walk
from dendrofx.search.choice import Choice
from dendrofx.search.explore import MANY_SITES
from dendrofx.statistics.quantiles import ScoreCounts
from dendrofx.values.counts import site_activity
from dendrofx.values.dealt import Statistics
from dendrofx.values.inputs import Inputs
from dendrofx.values.measure import counted_outputs, deviations, outputs

# The steps of a trial of branches that are chosen together.
TRIAL_STEPS = 16
# How often the distance to the neighbours of the best share of the budget is halved.
REFINED = 4


@dataclass(frozen=True)
class Calibrated:
    """A choice in force.

    Attributes:
        choice: what each site is given.
        recipe: what the module was made from.
        module: with its tolerances.
        steps: of the walk that set them, those within the budget; the last one is in force.
    """

    choice: Choice
    recipe: Recipe
    module: RoutedModule
    steps: tuple[Step, ...] = ()

    @property
    def last(self) -> Step | None:
        """The step in force."""
        return self.steps[-1] if self.steps else None


class Trial(NamedTuple):
    """A share of the budget, and whether every site gets an even part of it."""

    even: bool
    share: float


def best_choice(space: BlockSpace) -> tuple[Choice, float]:
    """Return the choice that costs least, of those at several shares of the budget, walked on the choosing rows.

    Where errors of sites add up worse than independent ones, more cautious branches can end up cheaper; and the parts of the budget
    that are best by the sites' slopes may be worse than even ones: slopes are measured one by one. After shares that are far apart,
    those halfway from the best one to its neighbours are tried, and so on. Also returns the multiplier that the choice's walk
    reached: calibration starts near it.
    """
    data = space.subject.data
    if data is None:
        return space.choose(1.0), 0.0
    known: dict[tuple[object, ...], tuple[float, float]] = {}  # of a choice: cost, and multiplier reached
    tried: dict[Trial, tuple[float, float]] = {}
    most = 2 * (len(BUDGET_SHARES) + space.steps(REFINED))
    for trial in progress(_trials(space, tried), "choosing jointly", total=most):
        choice = space.choose(trial.share, trial.even)
        key = tuple((n, c.branches.light_form, c.branches.gate_form) for n, c in choice.chosen.items())
        if key and key not in known:
            last = walked(space, choice, data.choose, space.steps(TRIAL_STEPS)).last
            known[key] = (
                (space.cost(choice, {}), 0.0) if last is None else (space.cost(choice, last.counts), last.multiplier)
            )
        tried[trial] = known.get(key, (math.inf, 0.0))
    best = _least(tried) if known else Trial(True, 1.0)
    return space.choose(best.share, best.even), tried.get(best, (math.inf, 0.0))[1]


def _trials(space: BlockSpace, tried: Mapping[Trial, tuple[float, float]]) -> Iterator[Trial]:
    """Yield what to try; what has been tried decides on what follows. Models of many sites try less, a single site only shares."""
    several, many = len(space.explored.found) > 1, len(space.sites) > MANY_SITES
    for even in (True, False) if several and not many else (not several,):
        yield from (Trial(even, share) for share in BUDGET_SHARES[:: 2 if many else 1])
    for _ in range(space.steps(REFINED) if several else 0):
        best = _least(tried)
        shares = sorted(t.share for t in tried if t.even == best.even)
        at = shares.index(best.share)
        near = [s for s in shares[max(at - 1, 0) : at + 2] if s != best.share]
        yield from [Trial(best.even, math.sqrt(best.share * share)) for share in near]


def _least(tried: Mapping[Trial, tuple[float, float]]) -> Trial:
    return min(tried, key=lambda trial: tried[trial][0])


def walked(
    space: BlockSpace,
    choice: Choice,
    batches: list[Inputs],
    steps: int,
    reached: float = 0.0,
    statistics: Statistics | None = None,
) -> Calibrated:
    """Walk the multiplier of a choice over a grid fixed by the choosing rows.

    Args:
        space: what sites can be given.
        choice: what each site is given.
        batches: what to walk on.
        steps: of the grid.
        reached: a multiplier to start near; not one that these batches reached.
        statistics: of the whole dataset, whose choosing rows fix the grid; None for those that were kept.
    """
    recipe = space.recipe(choice)
    module = recipe.build()
    scores: list[Tensor | ScoreCounts] = list(recipe.scores.values())
    if statistics is not None and scores:
        counted = statistics.scores(module)
        scores = [counted[name].over(recipe.weights[name]) for name in recipe.scores]
    grid = multiplier_grid(scores, [c.full_macs for c in choice.chosen.values()], steps)
    budget = space.request.budget
    limit = space.request.max_deviation if budget is None else budget.limit
    start = start_of(grid, reached)
    most = space.request.max_sample_deviation
    kept = walk(module, recipe.weights, grid, outcome(space, batches), limit, start, margin=budget is None, most=most)
    return Calibrated(choice, recipe, module, tuple(kept))


def outcome(space: BlockSpace, batches: Sequence[Inputs]) -> Outcome:
    """Return what measures a module's deviations on batches, or its losses where there is a budget to certify."""
    covered, budget = space.covered, space.request.budget
    if budget is not None:
        assert covered is not None
        picks = reference_picks(space.subject.original, space.subject.graph, batches, covered)
        tail = space.request.max_sample_deviation is not None
        return lambda gm: seen(gm, batches, picks, budget, covered, tail)
    reference = outputs(space.subject.graph, batches, covered)

    def measure(gm: RoutedModule) -> Seen:
        found, counts = counted_outputs(gm, batches, covered)
        far = deviations(reference, found)
        return Seen(far, counts, far)

    return measure


def calibrated(space: BlockSpace, choice: Choice, reached: float) -> Calibrated:
    """Return a choice with its tolerances."""
    data = space.subject.data
    if data is not None and choice.chosen:
        return walked(space, choice, data.tune, space.steps(STEPS), reached, data.statistics)
    recipe = space.recipe(choice)
    module = recipe.build()
    apply_multiplier(module, recipe.weights, space.request.max_deviation)
    return Calibrated(choice, recipe, module)


def settled(space: BlockSpace, choice: Choice, reached: float) -> Calibrated:
    """Return a choice with its tolerances, less the sites that turn out not to pay."""
    while True:
        made = calibrated(space, choice, reached)
        if not (space.request.decide and space.subject.data is not None and choice.chosen):
            return without_nets(made)
        choice, losers = reviewed(space, made)
        if not losers:
            return without_nets(replace(made, choice=choice))
        choice = choice.without(losers)


def without_nets(made: Calibrated) -> Calibrated:
    """Return it with the module as it will run: where there is no gate, without the full branch that calibration needed."""
    if not any(isinstance(b.gate_form, NoGate) for b in made.recipe.branches.values()):
        return made
    return replace(made, module=made.recipe.build({n: float(t) for n, t in tolerances(made.module).items()}))


def reviewed(space: BlockSpace, made: Calibrated) -> tuple[Choice, dict[Site, str]]:
    """Return the choice with prices at the activity that the budget needs, and the sites that do not pay at it."""
    prices = dict(made.choice.prices)
    losers: dict[Site, str] = {}
    for site in made.recipe.sites:
        if made.last is None:
            losers[site] = f"even the smallest tolerance misses the budget{_tail(space)} on calibration rows"
            continue
        active = site_activity(made.last.counts[site.name])
        price = prices[site.name] = space.price(site, made.choice.chosen[site.name], active, settled=True)
        if not price.pays:
            activity = f"at an activity of {100 * active:.1f} %"
            losers[site] = f"{price} {activity}, which the budget needs on calibration rows"
    return replace(made.choice, prices=prices), losers


def tail_of(space: BlockSpace, made: Calibrated | None = None) -> TailPlan | None:
    """Return what samples deviate by at most: in the last step of a choice, where none of its settings is to be certified."""
    most, data = space.request.max_sample_deviation, space.subject.data
    if most is None:
        return None
    if space.request.budget is not None or data is None or made is None or made.last is None:
        return TailPlan(most)
    return TailPlan(most, made.last.largest, data.samples[3])


def _tail(space: BlockSpace) -> str:
    """Name what else than the budget a tolerance had to keep."""
    most = space.request.max_sample_deviation
    return "" if most is None else f" or max_sample_deviation={most:g}"
