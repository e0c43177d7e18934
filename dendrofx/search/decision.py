"""A decision: what search found and a plan describes, ready to be finished."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from dendrofx.guarantee.settings import Setting
from dendrofx.plan.plan import Plan
from dendrofx.rewriting.module import RoutedModule
from dendrofx.rewriting.recipe import CascadeRecipe, Recipe


class Settings(Protocol):
    """What decides for a setting; it holds no calibration data."""

    def decided(self, setting: Setting) -> Decision:
        """Return the decision for a setting that was accepted."""


@dataclass(frozen=True)
class Decision:
    """What became of a model.

    Attributes:
        module: with its tolerances.
        recipe: what it was made from; None where the original is all there is.
        plan: what was decided, and why.
        walked: the settings that a budget was tested on, safest first.
        settings: what decides for them.
    """

    module: RoutedModule
    recipe: Recipe | CascadeRecipe | None
    plan: Plan
    walked: tuple[Setting, ...] = ()
    settings: Settings | None = None
