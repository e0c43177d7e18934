"""What is asked of `transform` for a comparison, and the modules that it returned: those in a budget, and their static rivals."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from dendrofx.compare import controls
from dendrofx.compare.case import Case
from dendrofx.gates import AlwaysLight, GateForm
from dendrofx.guarantee import Budget
from dendrofx.light import LightForm
from dendrofx.light.routed_blocks import RoutedBlocks
from dendrofx.plan.plan import Plan
from dendrofx.request import Options
from dendrofx.rewriting.module import RoutedModule
from dendrofx.transform import transform

# Where nothing is timed, fitting runs on two threads, so that a seed gives the same branches whatever --threads says.
FIT_THREADS = 2
ROUTED, LOSSLESS, STATIC = "routed", "lossless", "static-light"
MAX_DEVIATION = 0.01


@dataclass(frozen=True)
class Asked:
    """What the command line asks of `transform`.

    Attributes:
        max_deviation: the budget; None for the case's own.
        light, gate: named forms, None for all that are known.
        plan: a plan to reproduce instead of deciding.
        tune_seconds: time for timing parts, per transform.
        budget: to certify, None for the mean deviation.
        scope, full, max_sample_deviation: as `transform` takes them.
    """

    max_deviation: float | None = None
    seed: int = 0
    light: LightForm | RoutedBlocks | None = None
    gate: GateForm | None = None
    plan: Plan | None = None
    tune_seconds: float = 60.0
    budget: Budget | None = None
    scope: Literal["auto", "block", "model"] = "auto"
    full: LightForm | RoutedBlocks | None = None
    max_sample_deviation: float | None = None

    @property
    def most(self) -> float | None:
        """What any calibration sample may deviate by, in the plan where one is reproduced; None where any may."""
        tail = None if self.plan is None else self.plan.tail
        return self.max_sample_deviation if tail is None else tail.most

    def budgets(self, case: Case) -> dict[str, float]:
        """Return, by row, the budgets of the routed rows, the main one last."""
        if self.plan is not None:
            return {ROUTED: self.plan.max_deviation}
        if self.budget is not None:
            return {**({LOSSLESS: 0.0} if case.budgets else {}), ROUTED: self.budget.deviation}
        if not case.budgets:
            return {ROUTED: MAX_DEVIATION if self.max_deviation is None else self.max_deviation}
        given = case.budgets if self.max_deviation is None else (self.max_deviation,)
        return {LOSSLESS: 0.0, **{f"{ROUTED}-{100 * b:g}%": b for b in given if b > 0}}

    def options(self, case: Case, batch: int, max_deviation: float, decide: bool = True) -> dict[str, Any]:
        """Keyword arguments of `transform` for one batch size and budget."""
        plan, seed = self.plan, self.seed
        if plan is not None and plan.origin is not None:
            seed = plan.origin.seed
        certified = self.budget is not None and max_deviation > 0
        return {
            "calibration": case.calibration,
            "budget": self.budget if certified else max_deviation,
            "max_sample_deviation": self.max_sample_deviation if max_deviation > 0 else None,
            "scope": self.scope if certified else "block",
            "dead_rows": case.dead_rows,
            "repeated_rows": case.repeated_rows,
            "batch_sizes": [batch],
            "light": self.light if certified or isinstance(self.light, LightForm) else None,
            "gate": self.gate if certified or max_deviation > 0 else None,
            "plan": self.plan,
            "options": Options(
                full=self.full if certified or isinstance(self.full, LightForm) else None,
                tune_seconds=self.tune_seconds,
                decide=decide,
                seed=seed,
            ),
        }


@dataclass(frozen=True)
class Prepared:
    """A case, transformed for one batch size.

    Attributes:
        batch: the size that transform decided for.
        asked: what the command line asked for.
        main: the row that controls and sentences are about.
        modules: by row, what `transform` returned. A main row without routed sites is the same with `decide=False`, unless dead
            rows are what it gains from.
        refused: whether `transform` rewrote nothing for the main row.
        plans: by row.
        static: the light branches that are fastest on every row within the main budget, and the case's own forms.
        transform_s: seconds that the `transform` of the main row took.
    """

    case: Case
    batch: int
    asked: Asked
    main: str
    modules: Mapping[str, RoutedModule]
    refused: bool
    plans: Mapping[str, Plan]
    static: Mapping[str, RoutedModule]
    transform_s: float
    static_plans: Mapping[str, Plan] = field(default_factory=dict)

    @property
    def routed(self) -> RoutedModule:
        """The main row's module."""
        return self.modules[self.main]

    @property
    def limit(self) -> float:
        """What the main row's mean loss may be."""
        return self.plan.max_deviation if self.asked.budget is None else self.asked.budget.limit

    @property
    def budget_name(self) -> str:
        """What it is about."""
        return "deviation" if self.asked.budget is None else self.asked.budget.name

    @property
    def plan(self) -> Plan:
        """The main row's plan."""
        return self.plans[self.main]


def prepare(case: Case, batch: int, asked: Asked) -> Prepared:
    """Transform a case's model for a batch size: routed, and statically."""
    threads = torch.get_num_threads()
    if asked.plan is not None or asked.tune_seconds == 0:
        torch.set_num_threads(FIT_THREADS)
    try:
        return _prepared(case, batch, asked)
    finally:
        torch.set_num_threads(threads)


def _prepared(case: Case, batch: int, asked: Asked) -> Prepared:
    modules, spent = {}, 0.0
    budgets = asked.budgets(case)
    for name, budget in budgets.items():
        start = time.perf_counter()
        modules[name] = transform(case.model, **asked.options(case, batch, budget))
        spent = time.perf_counter() - start
    plans, main = {name: m.plan for name, m in modules.items()}, list(modules)[-1]
    live = plans[main].rows_left_out
    if not plans[main].rewrites and not live and not plans[main].budget:
        every = replace(asked, plan=None, max_sample_deviation=asked.most).options(
            case, batch, budgets[main], decide=False
        )
        modules[main] = transform(case.model, **every)
    static, static_plans = _static(case, asked, batch, budgets[main]) if modules[main].plan.rewrites else ({}, {})
    refused = not (plans[main].rewrites or live)
    return Prepared(case, batch, asked, main, modules, refused, plans, static, spent, static_plans)


def _static(case: Case, asked: Asked, batch: int, budget: float) -> tuple[dict[str, RoutedModule], dict[str, Plan]]:
    """Return every row light: the fastest within the budget, certified where that is, and the case's own forms."""
    static, plans = {}, {}
    for name, light in [(STATIC, asked.light), *case.static.items()]:
        rival = replace(asked, light=light, gate=AlwaysLight(), plan=None, full=None, scope="model")
        if name != STATIC or asked.budget is None:
            most = asked.most if name == STATIC else None
            rival = replace(rival, budget=None, max_deviation=budget, scope="block", max_sample_deviation=most)
        made = transform(case.model, **rival.options(case, batch, budget, decide=name == STATIC))
        plans[name] = made.plan
        if made.plan.rewrites:
            static[name] = controls.alone(made)
    return static, plans
