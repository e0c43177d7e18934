"""`Request`: what `transform` is called with, as everything after it reads it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import nn

from dendrofx.errors import InputError
from dendrofx.gates import GateForm, UserGate
from dendrofx.graph.sites import Selector
from dendrofx.guarantee.budget import Budget
from dendrofx.light import LightForm
from dendrofx.light.routed_blocks import RoutedBlocks
from dendrofx.plan.plan import Plan
from dendrofx.request.checks import (
    OPTIONAL,
    check_dead_rows,
    check_forms,
    check_plan,
    check_scope,
    checked_sizes,
    checked_tail,
    named_inputs,
    split_budget,
    split_forms,
    split_output,
)
from dendrofx.request.options import Options
from dendrofx.values.covered import Named

# The largest of a hundred deviations with an exponential tail, in means.
LARGEST_OVER_MEAN = math.log(100)


@dataclass(frozen=True)
class Request:
    """What the caller asked for; see `transform`. A budget of 0 approximates nothing.

    Attributes:
        max_deviation: the budget, or with one to certify where choosing starts.
        lights: forms of blocks, None for the default ones; light_models, exits: forms of whole models beside them, see `Forms`.
        gate: the gate to use, None for all that fit; optional_gate: a site may have none.
        decide: whether what does not pay is refused.
        seed: of every random choice.
        full: the form of every full branch; full_model: of a cascade's full model.
        batch_sizes: samples per call, ascending; None for those of the calibration.
        min_speedup: what the whole model must gain.
        exact: sites that are not routed may run in an exact form.
        budget: to certify.
        max_sample_deviation: that any calibration sample may deviate by, in any output that is covered; None for any.
        output: which outputs the budget is about, in the caller's words; by default all.
        dead_rows: the mask. repeated_rows: inputs whose rows repeat, none for all; None where that is not looked for.
        sites: which of them may be routed. scope: what is routed.
        tune_seconds: time for timing; None and 0 time nothing.
    """

    max_deviation: float
    lights: list[LightForm] | None = None
    gate: GateForm | None = None
    optional_gate: bool = False
    decide: bool = True
    seed: int = 0
    full: LightForm | None = None
    batch_sizes: tuple[int, ...] | None = None
    min_speedup: float = 1.05
    exact: bool = False
    budget: Budget | None = None
    max_sample_deviation: float | None = None
    light_models: tuple[RoutedBlocks, ...] = ()
    exits: tuple[tuple[str, ...], ...] = ((),)
    full_model: RoutedBlocks | None = None
    output: Named = None
    dead_rows: str | None = None
    repeated_rows: tuple[str, ...] | None = None
    sites: Selector = None
    scope: Literal["auto", "block", "model"] = "block"
    tune_seconds: float = 0.0

    @staticmethod
    def of(
        model: nn.Module,
        calibration: object,
        plan: Plan | None,
        options: Options,
        **asked: Any,  # noqa: ANN401  (the options of `transform`, checked here)
    ) -> Request:
        """Return the request that options of `transform` make, or with a plan the request that it was made for.

        Raises:
            InputError: an option that cannot be used, alone or with the others.
        """
        deviation, budget = split_budget(asked["budget"])
        scope, gate = asked["scope"], asked["gate"]
        check_forms(model, asked["light"], gate)
        check_dead_rows(asked["dead_rows"])
        check_scope(scope, budget, calibration, plan)
        check_plan(plan, options)
        output, budget = split_output(asked["output"], budget, calibration)
        sizes = checked_sizes(asked["batch_sizes"])
        tail = checked_tail(asked["max_sample_deviation"], calibration, plan)
        if scope == "auto" and (budget is None or gate == OPTIONAL):
            scope = "block"
        forms = split_forms(asked["light"], options.full, scope)
        if gate == OPTIONAL and scope == "model":
            raise InputError("gate='optional' is for scope='block': a cascade keeps its full model")
        made = Request(
            max_deviation=0.0 if deviation is None else deviation,
            lights=forms.lights,
            gate=UserGate(gate) if isinstance(gate, nn.Module) else None if gate == OPTIONAL else gate,
            optional_gate=gate == OPTIONAL,
            decide=options.decide,
            seed=options.seed,
            full=forms.full,
            batch_sizes=sizes,
            min_speedup=options.min_speedup,
            budget=budget,
            max_sample_deviation=tail,
            light_models=forms.light_models,
            exits=forms.exits,
            full_model=forms.full_model,
            output=output,
            dead_rows=asked["dead_rows"],
            repeated_rows=named_inputs(asked["repeated_rows"]),
            sites=asked["sites"],
            scope=scope,
            tune_seconds=options.tune_seconds if options.decide else 0.0,
        )
        return made.settled(deviation) if plan is None else made.for_plan(plan, options.redecide)

    @property
    def leaves_out_rows(self) -> bool:
        """Whether dead or repeated rows are to be left out, which needs symbolic shapes and changes results by rounding alone."""
        return self.dead_rows is not None or self.repeated_rows is not None

    @property
    def start(self) -> float:
        """The mean deviation that choosing starts at: that of the budget, or a lower one where the largest has to be."""
        most = self.max_sample_deviation
        return self.max_deviation if most is None else min(self.max_deviation, most / LARGEST_OVER_MEAN)

    def settled(self, deviation: float | None) -> Request:
        """Return it with the deviation to choose within, and whether exact forms may run."""
        if deviation is None:
            deviation = 0.01 if self.budget is None else self.budget.deviation
        return replace(self, max_deviation=deviation, exact=self.leaves_out_rows or deviation == 0)

    def for_plan(self, plan: Plan, redecide: bool) -> Request:
        """Return what a plan was made for: its mask, scope, tail and seed, and to decide it anew its budget, outputs and sizes."""
        asked = replace(
            self,
            dead_rows=None if plan.dead_rows is None else plan.dead_rows.mask,
            repeated_rows=None if plan.repeated_rows is None else tuple(plan.repeated_rows.inputs),
            scope="block" if plan.cascade is None else "model",
            max_sample_deviation=kept_tail(plan, self.max_sample_deviation),
            seed=self.seed if plan.origin is None else plan.origin.seed,
        )
        if not redecide or plan.origin is None:
            return asked
        origin = plan.origin
        asked = replace(
            asked,
            budget=kept_budget(plan, self.budget),
            output=tuple(plan.outputs) or None,
            batch_sizes=origin.batch_sizes,
            min_speedup=origin.min_speedup,
        )
        return asked.settled(plan.max_deviation)


def kept_budget(plan: Plan, budget: Budget | None) -> Budget | None:
    """Return the budget of a plan that is decided anew; raise `InputError` where the caller gave another, or has to give one."""
    if ("" if budget is None else str(budget)) != plan.budget:
        there = plan.budget or f"max_deviation {plan.max_deviation:g}"
        raise InputError(f"redecide=True keeps the plan's budget, {there}: pass the same budget=, not {budget}")
    return budget


def kept_tail(plan: Plan, most: float | None) -> float | None:
    """Return what a sample of a plan may deviate by; raise `InputError` where the caller gave another figure."""
    there = None if plan.tail is None else plan.tail.most
    if most not in (None, there):
        has = "has none" if there is None else f"says {there:g}"
        raise InputError(f"max_sample_deviation={most:g}, but the plan {has}: leave it out")
    return there
