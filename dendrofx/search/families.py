"""Families of settings that `decide_auto` lets compete: those of blocks, and those of whole models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

from torch import Tensor

from dendrofx.guarantee.budget import Budget
from dendrofx.guarantee.settings import Setting
from dendrofx.plan.times import ModelTimes
from dendrofx.search import decide_blocks, decide_models
from dendrofx.search.block_settings import block_settings, test_references, tested
from dendrofx.search.blocks import BlockSpace
from dendrofx.search.cascade.models import ModelSpace
from dendrofx.search.cascade.priced import model_settings
from dendrofx.search.cascade.search import tested as tested_model
from dendrofx.search.cascade.timed import fastest_of
from dendrofx.search.decide_blocks import Raced
from dendrofx.search.decision import Decision
from dendrofx.search.timer import Timer

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

    def fastest(self, accepted: Sequence[Setting], timer: Timer) -> Setting:
        """Return the one of several to race."""

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

    def fastest(self, accepted: Sequence[Setting], timer: Timer) -> Setting:
        """See `Family`."""
        return min(accepted, key=lambda s: s.cost)

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

    def fastest(self, accepted: Sequence[Setting], timer: Timer) -> Setting:
        """See `Family`."""
        return fastest_of(self.space, accepted, timer)

    def race(self, setting: Setting, timer: Timer) -> tuple[Times, str | None]:
        """See `Family`."""
        return decide_models.race_of(self.space, setting, timer)

    def decision(self, setting: Setting | str, walked: Sequence[Setting], times: Times) -> Decision:
        """See `Family`."""
        assert isinstance(setting, Setting)
        plan = decide_models.plan_of(self.space, times, self.timer)
        made = decide_models.cascade_settings(self.space, plan, walked)
        return replace(made.decided(setting), walked=tuple(walked), settings=made)
