"""The front at block scope: branches, tolerances and the weights between sites, searched on one set and tested on another.

The pipeline has decided which sites are routed. Here, every set of branches that is cheapest at some share of the error budget is
walked over its grid of multipliers, and over grids in which one site's weight is halved or doubled; the settings that no other
beats in risk and cost are tested in order (`search/front.py`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from dendrofx.guarantee.budget import Budget
from dendrofx.guarantee.losses import counted_losses, reference_picks
from dendrofx.rewriting.module import RoutedModule, graph_names, set_tolerances, tolerances
from dendrofx.search.calibrate import STEPS, Step, apply_multiplier, multiplier_grid
from dendrofx.search.choose import Candidate
from dendrofx.search.explore import MANY_SITES
from dendrofx.search.front import Setting, fastest, pareto, walked_front
from dendrofx.search.pipeline import BUDGET_SHARES, Pipeline
from dendrofx.search.prices import Price
from dendrofx.values.counts import Counts, activity
from dendrofx.values.covered import Covered
from dendrofx.values.inputs import Inputs
from dendrofx.values.measure import largest_mean

WEIGHTS = (0.5, 2.0)
# Grids with other weights than the sites' own take fewer steps, by this factor.
FEWER = 4
# A grid is left where the mean loss is this many times the limit.
FAR = 3.0
# Where settings lose the same, the one with fewer light rows is the safer one: by how much a share of light rows counts as risk.
LIGHT_AS_RISK = 1e-3


@dataclass(frozen=True)
class Variant:
    """One set of branches."""

    chosen: dict[str, Candidate]
    prices: dict[str, Price]
    module: RoutedModule
    weights: dict[str, float]
    scores: tuple[Tensor, ...]


class BlockFront:
    """The front of a run that has decided.

    Args:
        run: the run; `use` changes what it has chosen.
        budget: what is to be kept.

    Attributes:
        front: the tested settings, safest first.
    """

    def __init__(self, run: Pipeline, budget: Budget) -> None:
        assert run.data is not None
        self.run, self.budget = run, budget
        self.search, self.test = run.data.walk, run.data.test
        self.front: list[Setting] = []

    @property
    def covered(self) -> Covered:
        """The outputs that the budget is about; a run that routes something has found them."""
        assert self.run.options.covered is not None
        return self.run.options.covered

    @torch.no_grad()
    def chosen(self) -> Setting | str:
        """The fastest accepted setting, or why there is none."""
        references, self.test_references = self.references(self.search), self.references(self.test)
        found = [
            s for v in self._variants() for weights in self.weightings(v) for s in self.walked(v, weights, references)
        ]
        path = pareto(found, most_cost=1.0)
        if not path:
            return "no setting of the routed sites is predicted to be faster than the original"
        timer = self.run.timer
        self.front = walked_front(path, self.budget, nullcontext if timer is None else timer.interruptible)
        return fastest(self.front, self.budget)

    def _variants(self) -> Iterator[Variant]:
        """What is decided, and the other choices for the same sites."""
        run, decided = self.run, set(self.run.chosen)
        kept = dict(run.chosen), dict(run.prices), dict(run.refused)
        seen: set[tuple[int, ...]] = set()
        for share in (None, *BUDGET_SHARES):
            if share is not None:
                run.choose(share)
                run.chosen = {n: c for n, c in run.chosen.items() if n in decided}
            key = tuple(id(c) for c in run.chosen.values())
            if run.chosen and key not in seen:
                seen.add(key)
                module, weights = run.rewritten()
                yield Variant(dict(run.chosen), dict(run.prices), module, weights, tuple(run.scores.values()))
            run.chosen, run.prices, run.refused = (dict(part) for part in kept)  # type: ignore[assignment]

    def weightings(self, variant: Variant) -> Iterator[dict[str, float]]:
        """The sites' weights, and each of them halved and doubled."""
        yield variant.weights
        if 1 < len(variant.weights) <= MANY_SITES:
            for name, weight in variant.weights.items():
                for factor in WEIGHTS:
                    yield {**variant.weights, name: factor * weight}

    def references(self, batches: Sequence[Inputs]) -> list[list[Tensor]]:
        """See `reference_picks`."""
        return reference_picks(self.run.original, self.run.captured, batches, self.covered)

    def walked(
        self, variant: Variant, weights: Mapping[str, float], references: Sequence[Sequence[Tensor]]
    ) -> Iterator[Setting]:
        """The settings of one grid, from nearly all rows hard to none, until the loss is far beyond the limit."""
        macs = [c.full_macs for c in variant.chosen.values()]
        steps = self.run.steps_of(STEPS if weights is variant.weights else STEPS // FEWER)
        for multiplier in multiplier_grid(variant.scores, macs, steps):
            apply_multiplier(variant.module, weights, multiplier)
            losses, counts = counted_losses(variant.module, self.search, references, self.budget, self.covered)
            loss = largest_mean(losses)
            values = {name: float(t) for name, t in tolerances(variant.module).items()}
            forms = dict.fromkeys(
                f"{c.branches.light_form} with {c.branches.gate_form}" for c in variant.chosen.values()
            )
            yield Setting(
                ", ".join(forms),
                values,
                loss + LIGHT_AS_RISK * (1 - activity(counts)),
                self.cost(variant, counts),
                activity(counts),
                partial(self.tested, variant, values),
                partial(_with_tolerances, variant.module, values),
                variant,
            )
            if loss > FAR * self.budget.limit:
                return

    def cost(self, variant: Variant, counts: Counts) -> float:
        """Predicted, of the run's sites with these branches."""
        kept, self.run.chosen = self.run.chosen, variant.chosen
        try:
            return self.run.cost_of(counts)
        finally:
            self.run.chosen = kept

    def tested(self, variant: Variant, values: Mapping[str, float]) -> tuple[Tensor, float]:
        """Losses on the test samples; rows are routed within samples, so that any sample may lose."""
        set_tolerances(variant.module, values)
        return counted_losses(variant.module, self.test, self.test_references, self.budget, self.covered)[0], 1.0

    def use(self, setting: Setting) -> RoutedModule:
        """Make a setting what the run has chosen, and return its module."""
        module = setting.make()
        variant = setting.source
        assert isinstance(variant, Variant)
        self.run.chosen, self.run.prices = dict(variant.chosen), dict(variant.prices)
        losses, counts = counted_losses(module, self.test, self.test_references, self.budget, self.covered)
        self.run.steps = [Step(float("nan"), largest_mean(losses), tuple(losses.mean(0).tolist()), counts)]
        return module


def _with_tolerances(module: RoutedModule, values: Mapping[str, float]) -> RoutedModule:
    """A module of its own with these tolerances; weights and branches are shared."""
    made = RoutedModule(module, copy.deepcopy(module.graph))  # which makes new containers of what the graph names
    made.meta.update(module.meta)
    inside = graph_names(module)
    for site, value in values.items():
        made.get_submodule(f"routed.{inside[site]}").register_buffer("tolerance", torch.tensor(value))
    return made.eval().requires_grad_(False)
