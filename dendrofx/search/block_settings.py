"""Settings of block routing for a budget to certify: branches, tolerances and the weights between sites.

Which sites are routed has been decided. Here, every set of branches that is cheapest at some share of the error budget is walked
over its grid of multipliers, and over grids in which one site's weight is halved or doubled; the settings that no other beats in
risk and cost are tested in order (`guarantee/settings.py`). Where the caller limits what any sample may deviate by, settings that
exceed it on a sample of the search are left out before that order is fixed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dendrofx.guarantee.budget import Budget
from dendrofx.guarantee.losses import Seen, reference_picks, seen
from dendrofx.guarantee.metrics import expected_beyond
from dendrofx.guarantee.sequence import tested_step
from dendrofx.guarantee.settings import Setting
from dendrofx.plan.plan import Plan
from dendrofx.plan.tail import TailPlan
from dendrofx.rewriting.module import RoutedModule
from dendrofx.rewriting.recipe import Recipe
from dendrofx.rewriting.tolerances import set_tolerances, tolerances
from dendrofx.search.blocks import BUDGET_SHARES, BlockSpace
from dendrofx.search.calibrate import STEPS, apply_multiplier, multiplier_grid
from dendrofx.search.certify import certified
from dendrofx.search.choice import Choice
from dendrofx.search.decision import Decision
from dendrofx.search.entries import site_entries
from dendrofx.search.explore import MANY_SITES
from dendrofx.search.explored import Explored
from dendrofx.search.settle import Calibrated
from dendrofx.values.counts import activity
from dendrofx.values.covered import Covered
from dendrofx.values.inputs import Inputs
from dendrofx.values.measure import largest_mean

WEIGHTS = (0.5, 2.0)
# Grids with other weights than the sites' own take fewer steps, by this factor.
FEWER = 4
# Batches, and what the original gives for them.
Samples = tuple[Sequence[Inputs], Sequence[Sequence[Tensor]]]
# A grid is left where the mean loss, or the largest deviation of a sample, is this many times the limit.
FAR = 3.0
# Where settings lose the same, the one with fewer light rows is the safer one: by how much a share of light rows counts as risk.
LIGHT_AS_RISK = 1e-3


@dataclass(frozen=True)
class Variant:
    """One set of branches, and a module to try its tolerances on."""

    choice: Choice
    recipe: Recipe
    module: RoutedModule


@torch.no_grad()
def block_settings(space: BlockSpace, decided: Choice, budget: Budget) -> Iterator[Setting]:
    """Yield the settings of the sites that were decided on."""
    data = space.subject.data
    assert data is not None
    sets = [data.tune] if space.request.max_sample_deviation is None else [data.tune, data.choose]
    search = [(batches, _references(space, batches)) for batches in sets]
    for variant in _variants(space, decided):
        for weights in _weightings(variant.recipe.weights):
            yield from _walked(space, variant, weights, budget, search)


@torch.no_grad()
def tested(space: BlockSpace, budget: Budget, setting: Setting, references: Sequence[Sequence[Tensor]]) -> Setting:
    """Return a setting with what the test samples say; rows are routed within samples, so that any sample may lose."""
    found = test_seen(space, budget, setting, references)
    largest = (setting.largest[0], found.largest)
    return replace(setting, tested=tested_step(found.losses, budget), counts=found.counts, largest=largest)


def test_seen(space: BlockSpace, budget: Budget, setting: Setting, references: Sequence[Sequence[Tensor]]) -> Seen:
    """Return what a setting does on the test samples."""
    data, variant = space.subject.data, setting.source
    assert data is not None
    assert space.covered is not None
    set_tolerances(variant.module, setting.tolerances)
    tail = space.request.max_sample_deviation is not None
    return seen(variant.module, data.test, references, budget, space.covered, tail)


def test_references(space: BlockSpace) -> list[list[Tensor]]:
    """Return what the original gives for the test samples."""
    assert space.subject.data is not None
    return _references(space, space.subject.data.test)


def _references(space: BlockSpace, batches: Sequence[Inputs]) -> list[list[Tensor]]:
    assert space.covered is not None
    return reference_picks(space.subject.original, space.subject.graph, batches, space.covered)


def _variants(space: BlockSpace, decided: Choice) -> Iterator[Variant]:
    """Yield what is decided, and the other choices for the same sites."""
    seen: set[tuple[int, ...]] = set()
    for share in (None, *BUDGET_SHARES):
        choice = decided if share is None else space.choose(share, even=True).within(decided)
        key = tuple(id(c) for c in choice.chosen.values())
        if choice.chosen and key not in seen:
            seen.add(key)
            recipe = space.recipe(choice)
            yield Variant(choice, recipe, recipe.build())


def _weightings(weights: Mapping[str, float]) -> Iterator[Mapping[str, float]]:
    """Yield the sites' weights, and each of them halved and doubled."""
    yield weights
    if 1 < len(weights) <= MANY_SITES:
        for name, weight in weights.items():
            for factor in WEIGHTS:
                yield {**weights, name: factor * weight}


def _walked(
    space: BlockSpace,
    variant: Variant,
    weights: Mapping[str, float],
    budget: Budget,
    search: Sequence[Samples],
) -> Iterator[Setting]:
    """Yield the settings of one grid, from nearly all rows hard to none, until the loss is far beyond the limit."""
    chosen, most = variant.choice.chosen.values(), space.request.max_sample_deviation
    steps = space.steps(STEPS if weights is variant.recipe.weights else STEPS // FEWER)
    forms = dict.fromkeys(f"{c.branches.light_form} with {c.branches.gate_form}" for c in chosen)
    grid = multiplier_grid(list(variant.recipe.scores.values()), [c.full_macs for c in chosen], steps)
    for multiplier in grid:
        apply_multiplier(variant.module, weights, multiplier)
        found = _searched(space, variant, budget, search)
        loss, counts = largest_mean(found.losses), found.counts
        risk = loss if budget.beyond is None or found.far is None else (loss + _expected(found.far, budget.beyond)) / 2
        if found.within(most):
            yield Setting(
                ", ".join(forms),
                {name: float(t) for name, t in tolerances(variant.module).items()},
                risk + LIGHT_AS_RISK * (1 - activity(counts)),
                space.cost(variant.choice, counts),
                activity(counts),
                variant,
                largest=(found.largest, None),
                kin=", ".join(forms),
            )
        if loss > FAR * budget.limit or not found.within(None if most is None else FAR * most):
            return


def _expected(far: Tensor, limit: float) -> float:
    """Return the share of samples like these that deviates by more than a limit, in the output where it is largest."""
    return largest_mean(expected_beyond(far, limit))


def _searched(space: BlockSpace, variant: Variant, budget: Budget, search: Sequence[Samples]) -> Seen:
    """Return what a variant does on the samples of the search: losses and counts on the first set, deviations on all."""
    assert space.covered is not None
    (first, *others), most = search, space.request.max_sample_deviation
    found = seen(variant.module, *first, budget, space.covered, most is not None or budget.beyond is not None)
    for samples in others:
        if found.within(most):
            more = seen(variant.module, *samples, budget, space.covered, True).far
            assert found.far is not None
            assert more is not None
            found = replace(found, far=torch.cat([found.far, more]))
    return found


def in_force(setting: Setting) -> Calibrated:
    """Return the branches of a setting with its tolerances."""
    variant = setting.source
    assert isinstance(variant, Variant)
    return Calibrated(variant.choice, variant.recipe, variant.recipe.build(setting.tolerances))


def without_data(space: BlockSpace) -> BlockSpace:
    """Return what the settings of a space need to be decided: neither calibration nor candidates."""
    bare = Explored(weights=space.explored.weights)
    return replace(
        space,
        subject=replace(space.subject, data=None),
        explored=bare,
        tuning=replace(space.tuning, explored=bare),
    )


@dataclass(frozen=True)
class BlockSettings:
    """What decides for the settings of blocks.

    Attributes:
        space: without data.
        plan: what their plans have in common.
        walked: the tested settings, in order.
        budget: what they keep; covered: in which outputs; inputs: on test samples with this fingerprint.
    """

    space: BlockSpace
    plan: Plan
    walked: tuple[Setting, ...]
    budget: Budget
    covered: Covered
    inputs: str

    def decided(
        self, setting: Setting, made: Calibrated | None = None, measured: Mapping[str, float] | None = None
    ) -> Decision:
        """Return the decision for a setting that was accepted, with a certificate of its own; `made` where it is in force."""
        made = in_force(setting) if made is None else made
        model = self.space.subject.model
        shown = certified(made.module, self.walked, setting, self.budget, self.covered, self.inputs, model)
        plan = replace(
            self.plan,
            sites=site_entries(self.space, made, setting.counts, measured),
            deviation=None,
            multiplier=None,
            refusal="",
            certificate=shown,
            no_sites="",
            tail=self._tail(setting),
        )
        return Decision(made.module, made.recipe, plan)

    def _tail(self, setting: Setting) -> TailPlan | None:
        """Return what samples deviate by at most with a setting in force."""
        return None if self.plan.tail is None else self.plan.tail.of(setting, self.plan.samples)
