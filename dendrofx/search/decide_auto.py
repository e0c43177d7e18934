"""Deciding on a budget alone: rows of blocks, light models, exits and full models in light forms compete.

search     blocks are searched as at block scope, models as at model scope; each gives settings with a risk and a cost
test       the settings of both are put into common paths, fixed before a test sample is seen: a path of each kind would be two
           tests of the same samples at full delta
race       the fastest accepted setting of each is raced against the original, and the faster one is taken

Where samples depend on each other, or the graph has no symbolic shapes, blocks are searched alone, and the plan says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Protocol

import torch
from torch import Tensor

from dendrofx.errors import InputError
from dendrofx.guarantee.budget import Budget
from dendrofx.guarantee.path import paths
from dendrofx.guarantee.settings import Setting, fastest, walk_all
from dendrofx.plan.times import ModelTimes
from dendrofx.request import Request
from dendrofx.search import decide_blocks, decide_models
from dendrofx.search.block_settings import block_settings, test_references, tested
from dendrofx.search.blocks import BlockSpace
from dendrofx.search.cascade.models import ModelSpace
from dendrofx.search.cascade.priced import model_settings
from dendrofx.search.cascade.search import Gated
from dendrofx.search.cascade.search import tested as tested_model
from dendrofx.search.certify import warn_of_duplicates
from dendrofx.search.decide_blocks import Raced
from dendrofx.search.decision import Decision, Settings
from dendrofx.search.remembered import Remembered, is_remembering, remembering
from dendrofx.search.timer import Timer, interruptible
from dendrofx.subject import Subject

INTERRUPTED = "tuning was interrupted before {} were searched"
NOTHING = "no setting of blocks or models is predicted to be faster than the original"
BLOCKS, MODELS = "blocks", "models"
Times = tuple[ModelTimes, ...]


class Family(Protocol):
    """One kind of settings."""

    @property
    def name(self) -> str:
        """What it is called."""

    def settings(self) -> list[Setting]:
        """Return them all, with costs over the original's call."""

    def tested(self, setting: Setting) -> Setting:
        """Return one with what the test samples say."""

    def race(self, setting: Setting, timer: Timer) -> tuple[Times, str | None]:
        """Time one against the original; return the times, and why it lost, if it did."""

    def decision(self, setting: Setting | str, walked: Sequence[Setting], times: Times) -> Decision:
        """Return the decision for one; or for none, and why."""


@dataclass(frozen=True)
class Blocks:
    """Settings of block routing."""

    space: BlockSpace
    raced: Raced
    budget: Budget
    timer: Timer | None
    name: str = BLOCKS

    def settings(self) -> list[Setting]:
        """See `Family`."""
        choice = self.raced.made.choice
        if not choice.chosen:
            return []
        share = self._share()
        found = block_settings(self.space, choice, self.budget)
        return [replace(s, cost=1 - share * (1 - s.cost)) for s in found if s.cost < 1]

    def tested(self, setting: Setting) -> Setting:
        """See `Family`."""
        return tested(self.space, self.budget, setting, self.references)

    @cached_property
    def references(self) -> list[list[Tensor]]:
        """What the original gives for the test samples."""
        return test_references(self.space)

    def race(self, setting: Setting, timer: Timer) -> tuple[Times, str | None]:
        """See `Family`."""
        return decide_blocks.race_of(self.space, setting, timer)

    def decision(self, setting: Setting | str, walked: Sequence[Setting], times: Times) -> Decision:
        """See `Family`."""
        raced = self.raced if isinstance(setting, str) else replace(self.raced, times=times)
        return decide_blocks.concluded(self.space, raced, self.budget, walked, setting, self.timer)

    def _share(self) -> float:
        """Return the part of the original's call that the explored blocks take; 1 where nothing was timed."""
        if not self.raced.times or self.space.tuning.measured is None:
            return 1.0
        blocks = sum(self.space.tuning.block_cost(s) for s in self.space.sites if s.name in self.space.explored.found)
        return min(blocks / self.raced.times[-1].scripted_ms, 1.0)


@dataclass(frozen=True)
class Models:
    """Settings of cascades and exits."""

    space: ModelSpace
    timer: Timer | None
    name: str = MODELS

    def settings(self) -> list[Setting]:
        """See `Family`."""
        return [] if self.space.missing else model_settings(self.space, self.timer)

    def tested(self, setting: Setting) -> Setting:
        """See `Family`."""
        return tested_model(setting, self.space.budget)

    def race(self, setting: Setting, timer: Timer) -> tuple[Times, str | None]:
        """See `Family`."""
        return decide_models.race_of(self.space, setting, timer)

    def decision(self, setting: Setting | str, walked: Sequence[Setting], times: Times) -> Decision:
        """See `Family`."""
        assert isinstance(setting, Setting)
        plan = decide_models.plan_of(self.space, times, self.timer)
        made = decide_models.cascade_settings(self.space, plan, walked)
        return replace(made.decided(setting), walked=tuple(walked), settings=made)


@dataclass(frozen=True)
class Either:
    """What decides for the settings of several families: each one's own."""

    blocks: Settings | None
    models: Settings | None

    def decided(self, setting: Setting) -> Decision:
        """Return the decision for a setting that was accepted."""
        own = self.models if isinstance(setting.source, Gated) else self.blocks
        assert own is not None
        return own.decided(setting)


def decide_auto(subject: Subject, request: Request, timer: Timer | None) -> Decision:
    """Take the fastest certified setting that wins against the original, whatever it routes.

    Args:
        subject: its graph on live rows, where the caller named a mask.
        request: with a budget.
        timer: what times; None decides by counted cost.
    """
    budget = request.budget
    assert budget is not None
    assert subject.data is not None
    with nullcontext() if is_remembering() else remembering(Remembered()):
        space, raced = decide_blocks.search(subject, request, timer)
        if raced.lost is not None:
            return decide_auto(subject.on_all_rows(raced.lost, request.sites), request, timer)
        warn_of_duplicates(subject.data.test)
        blocks = Blocks(space, raced, budget, timer)
        models: Models | str = INTERRUPTED.format(MODELS)
        with interruptible(timer):
            models = _models(subject, request, budget, timer)
    families: dict[str, Family] = {BLOCKS: blocks}
    if isinstance(models, Models):
        families[MODELS] = models
    decision = _decided(families, request, budget, timer, subject.data.samples)
    if isinstance(models, str):
        decision = replace(decision, plan=replace(decision.plan, rivals=f"samples are not routed: {models}"))
    return decision


def _models(subject: Subject, request: Request, budget: Budget, timer: Timer | None) -> Models | str:
    """Return the settings of models, or why there are none."""
    if subject.unshaped:
        return subject.unshaped
    try:
        return Models(ModelSpace.fitted(subject, request, budget, timer), timer)
    except InputError as error:
        return str(error).removeprefix("scope='model' ")


def _decided(
    families: Mapping[str, Family], request: Request, budget: Budget, timer: Timer | None, samples: Sequence[int]
) -> Decision:
    """Walk one path through all families, and race the fastest of each."""
    owner: dict[int, Family] = {}
    found: list[Setting] = []
    for family in families.values():
        with interruptible(timer):
            for setting in family.settings():
                owner[id(setting.source)] = family
                found.append(setting)
    worth = paths(found, decide_models.most_cost(request), budget, samples[4], samples[2] + samples[3])
    with torch.no_grad():
        walked = walk_all(worth, lambda s: owner[id(s.source)].tested(s), partial(interruptible, timer))
    best = fastest(walked, budget, request.max_sample_deviation) if worth else NOTHING
    if isinstance(best, str):
        return families[BLOCKS].decision(best, walked, ())
    winners: list[tuple[float, Family, Setting, Times]] = []
    reasons = []
    for family in families.values():
        own = [
            s for s in walked if s.accepted and s.within(request.max_sample_deviation) and owner[id(s.source)] is family
        ]
        if not own:
            continue
        setting = min(own, key=lambda s: s.cost)
        times: Times = ()
        reason: str | None = None
        if timer is not None and request.decide:
            reason = decide_blocks.INTERRUPTED
            with interruptible(timer):
                times, reason = family.race(setting, timer)
        if reason is None:
            speed = min((t.speedup for t in times), default=1 / setting.cost)
            winners.append((speed, family, setting, times))
        else:
            reasons.append(reason)
    if not winners:
        return families[BLOCKS].decision("; ".join(dict.fromkeys(reasons)), walked, ())
    return _fastest(winners, families, walked)


def _fastest(
    winners: Sequence[tuple[float, Family, Setting, Times]], families: Mapping[str, Family], walked: Sequence[Setting]
) -> Decision:
    """Return the decision of the fastest family, with what the best of each gains, and settings of all of them."""
    made = {family.name: family.decision(setting, walked, times) for _, family, setting, times in winners}
    decision = made[max(winners, key=lambda w: w[0])[1].name]
    said = ", ".join(f"{family.name} {speed:.2f} x" for speed, family, _, _ in winners)
    plan = replace(decision.plan, rivals=f"the best certified setting of {said}" if len(winners) > 1 else "")
    own = {name: None if name not in made else made[name].settings for name in (BLOCKS, MODELS)}
    both = all(own[name] is not None for name in families)
    return replace(decision, plan=plan, settings=Either(own[BLOCKS], own[MODELS]) if both else decision.settings)
