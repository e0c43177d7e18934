"""Finishing: a decision becomes the module that `transform` returns, with its plan, its settings and a graph that can be read."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from dendrofx.gates import NoGate
from dendrofx.graph.record import positional
from dendrofx.graph.show import annotate_shapes
from dendrofx.guarantee.settings import Setting
from dendrofx.machine.memory import return_free_memory
from dendrofx.plan.entries import SitePlan
from dendrofx.plan.plan import Plan
from dendrofx.rewriting.module import RoutedModule, name_as_original
from dendrofx.search.decision import Decision, Settings
from dendrofx.values.inputs import Inputs
from dendrofx.values.meta import HEADERS, RECIPE, SETTINGS


@torch.no_grad()
def finish(decision: Decision, example: Inputs | None) -> RoutedModule:
    """Return a decision's module with its plan, its recipe, its settings, and shapes on its graph when there is an example."""
    module, plan = decision.module, decision.plan
    module.plan = plan
    name_as_original(module)
    module.meta[RECIPE] = decision.recipe
    module.meta[HEADERS] = _headers(plan)
    if decision.settings is not None:
        maker = SettingMaker(decision.settings, example)
        module.meta[SETTINGS] = [replace(s, maker=maker) for s in decision.walked]
    if example is not None:
        return_free_memory()  # what came before, the last race among it
        annotate_shapes(module, tuple(positional(module, example)), example.samples)
    return module


@dataclass(frozen=True)
class SettingMaker:
    """What makes the module of a setting: what decides for it, and an example for the shapes in its printed graph."""

    settings: Settings
    example: Inputs | None

    def made(self, setting: Setting) -> RoutedModule:
        """Return the module with a setting in force, with its plan and certificate."""
        return finish(self.settings.decided(setting), self.example)


def _headers(plan: Plan) -> dict[str, str]:
    """Return what the printed graph says about each site."""
    if plan.cascade is not None and plan.rewrites:
        return {"model": str(plan.cascade)}
    return {e.name: _header(e) for e in plan.routed}


def _header(entry: SitePlan) -> str:
    rate = "not calibrated" if entry.activity is None else f"full rows {100 * entry.activity:.1f} % (calibration)"
    full = "" if entry.full is None else f"   full {entry.full}"
    if isinstance(entry.gate, NoGate):
        return f"every row light {entry.light}   no gate, no full branch"
    return f"light {entry.light}   gate {entry.gate} < {entry.tolerance:.3g}{full}   {rate}"
