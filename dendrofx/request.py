"""`Request`: what `transform` is called with, checked before anything is run, and quoted where it cannot be used."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeGuard

from torch import nn

from dendrofx.errors import InputError
from dendrofx.gates import GateForm, UserGate
from dendrofx.graph.capture import is_routed
from dendrofx.graph.sites import Selector
from dendrofx.guarantee.budget import Budget
from dendrofx.light import LightForm
from dendrofx.light.routed import Routed
from dendrofx.plan.plan import Plan
from dendrofx.values.covered import Named, named_outputs

OPTIONAL = "optional"


@dataclass(frozen=True)
class Request:
    """What the caller asked for; see `transform`. A budget of 0 approximates nothing.

    Attributes:
        max_deviation: the budget, or with one to certify where choosing starts.
        lights: forms of blocks, None for the default ones; light_models: forms of whole models beside them.
        gate: the gate to use, None for all that fit; optional_gate: a site may have none.
        decide: whether what does not pay is refused.
        seed: of every random choice.
        full: the form of every full branch; full_model: of a cascade's full model.
        batch_sizes: samples per call, ascending; None for those of the calibration.
        min_speedup: what the whole model must gain.
        exact: sites that are not routed may run in an exact form.
        budget: to certify.
        output: which outputs the budget is about, in the caller's words; by default all.
        dead_rows: the mask. sites: which of them may be routed. scope: what is routed.
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
    light_models: tuple[Routed, ...] = ()
    full_model: Routed | None = None
    output: Named = None
    dead_rows: str | None = None
    sites: Selector = None
    scope: Literal["block", "model"] = "block"
    tune_seconds: float = 0.0

    @staticmethod
    def of(
        model: nn.Module,
        calibration: object,
        plan: Plan | None,
        redecide: bool,
        **asked: Any,  # noqa: ANN401  (the options of `transform`, checked here)
    ) -> Request:
        """Return the request that options of `transform` make, or with a plan the request that it was made for.

        Raises:
            InputError: an option that cannot be used, alone or with the others.
        """
        deviation, budget, dead_rows, scope = (asked[n] for n in ("max_deviation", "budget", "dead_rows", "scope"))
        check(model, deviation, asked["light"], asked["gate"], asked["seed"])
        check_dead_rows(dead_rows)
        check_budget(budget, scope, deviation, calibration, plan)
        output, budget = split_output(asked["output"], budget, calibration)
        sizes = check_tuning(*(asked[n] for n in ("full", "batch_sizes", "min_speedup", "tune_seconds")))
        lights, light_models, full, full_model = split_forms(asked["light"], asked["full"], scope)
        if redecide and plan is None:
            raise InputError("redecide=True decides a plan anew: pass plan=")
        if plan is not None and not isinstance(plan, Plan):
            raise InputError(f"plan must be a dendrofx.Plan, such as Plan.load('plan.json') gives, got {plan!r}")
        optional = asked["gate"] == OPTIONAL
        gate = UserGate(asked["gate"]) if isinstance(asked["gate"], nn.Module) else None if optional else asked["gate"]
        if optional and scope == "model":
            raise InputError("gate='optional' is for scope='block': a cascade keeps its full model")
        made = Request(
            0.0 if deviation is None else deviation,
            lights,
            gate,
            optional,
            asked["decide"],
            asked["seed"],
            full,
            sizes,
            asked["min_speedup"],
            False,
            budget,
            light_models,
            full_model,
            output,
            dead_rows,
            asked["sites"],
            scope,
            asked["tune_seconds"] if asked["decide"] else 0.0,
        )
        return made.settled(deviation) if plan is None else made.for_plan(plan, redecide)

    def settled(self, deviation: float | None) -> Request:
        """Return it with the deviation to choose within, and whether exact forms may run."""
        if deviation is None:
            deviation = 0.01 if self.budget is None else self.budget.deviation
        return replace(self, max_deviation=deviation, exact=self.dead_rows is not None or deviation == 0)

    def for_plan(self, plan: Plan, redecide: bool) -> Request:
        """Return what a plan was made for: its mask, scope and seed, and to decide it anew its budget, outputs and sizes."""
        asked = replace(
            self,
            dead_rows=None if plan.dead_rows is None else plan.dead_rows.mask,
            scope="block" if plan.cascade is None else "model",
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


def check_tuning(
    full: object, batch_sizes: object, min_speedup: object, tune_seconds: object
) -> tuple[int, ...] | None:
    """Return the batch sizes, ascending."""
    if not (full is None or isinstance(full, LightForm | Routed)):
        raise InputError(
            f"full must be a light form such as dendrofx.Prepacked() or dendrofx.Pruned(energy=1.0), got {full!r}"
        )
    if not _number(min_speedup) or not min_speedup > 0:
        raise InputError(f"min_speedup must be a number above 0, got {min_speedup!r}; 1.05 is five percent faster")
    if not _number(tune_seconds) or not tune_seconds >= 0:
        raise InputError(f"tune_seconds must be a number of at least 0, got {tune_seconds!r}")
    if batch_sizes is None:
        return None
    sizes = list(batch_sizes) if isinstance(batch_sizes, Iterable) and not isinstance(batch_sizes, str) else []
    if not sizes or not all(isinstance(b, int) and not isinstance(b, bool) and b >= 1 for b in sizes):
        raise InputError(f"batch_sizes must be whole numbers of at least 1, such as [1, 256], got {batch_sizes!r}")
    return tuple(sorted(set(sizes)))


def check_budget(budget: object, scope: object, max_deviation: object, calibration: object, plan: object) -> None:
    """Raise `InputError` where budget and scope do not go together with the rest."""
    if scope not in ("block", "model"):
        raise InputError(f"scope must be 'block' or 'model', got {scope!r}")
    if budget is not None and not isinstance(budget, Budget):
        raise InputError(f"budget must be a dendrofx.Budget, such as Budget('flip', limit=0.01), got {budget!r}")
    if budget is not None and max_deviation is not None:
        raise InputError("budget= and max_deviation= are two budgets: pass one of them")
    if plan is not None:
        return
    if scope == "model" and budget is None:
        raise InputError("scope='model' needs budget=, such as dendrofx.Budget('flip', limit=0.01)")
    if budget is not None and calibration is None:
        raise InputError(f"budget={budget}: it is shown on calibration samples: pass calibration=")


def split_output(output: object, budget: Budget | None, calibration: object) -> tuple[Named, Budget | None]:
    """Return what the budget is about, and the budget to certify with the same in it.

    Raises:
        InputError: the two name different outputs, or nothing is measured on them.
    """
    named = named_outputs(output)
    if named is None:
        return None if budget is None else budget.named, budget
    if budget is None:
        return named, None
    if budget.named not in (None, named):
        raise InputError(f"output={output!r}, but the budget is {budget}: name the output in one of them")
    return named, replace(budget, output=named)


def split_forms(
    light: LightForm | Routed | Sequence[LightForm | Routed] | None, full: LightForm | Routed | None, scope: str
) -> tuple[list[LightForm] | None, tuple[Routed, ...], LightForm | None, Routed | None]:
    """Forms of blocks and forms of whole models: light ones, None for all that are known, and the full one of either kind.

    Raises:
        InputError: a form of whole models where blocks are routed.
    """
    given = [] if light is None else [light] if isinstance(light, LightForm | Routed) else list(light)
    models = tuple(f for f in given if isinstance(f, Routed))
    if scope == "block" and (named := [*models, *([full] if isinstance(full, Routed) else [])]):
        raise InputError(
            f"{named[0]} is a model with routed blocks, for the light or full model of scope='model': at scope='block' pass"
            f" max_deviation={named[0].max_deviation:g}"
        )
    blocks = None if light is None else [f for f in given if isinstance(f, LightForm)]
    if isinstance(full, Routed):
        return blocks, models, None, full
    return blocks, models, full, None


def check_dead_rows(dead_rows: object) -> None:
    """Raise `InputError` for what names no mask."""
    named = isinstance(dead_rows, str) and dead_rows.removeprefix("~").isidentifier()
    if dead_rows is not None and not named:
        raise InputError(
            "dead_rows names the mask input, such as 'attention_mask', or '~padding_mask' where ones mark padding,"
            f" got {dead_rows!r}"
        )


def _number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def check(model: nn.Module, max_deviation: object, light: object, gate: object, seed: object) -> None:
    """Raise `InputError` for a model or an option that cannot be used."""
    if is_routed(model):
        raise InputError("the model already holds routed sites: transform the original model")
    if max_deviation is not None and not (_number(max_deviation) and max_deviation >= 0):
        raise InputError(f"max_deviation must be a number of at least 0, got {max_deviation!r}; 0.01 is one percent")
    if max_deviation is not None and max_deviation > 1:
        raise InputError(
            f"max_deviation is {max_deviation:g}, {100 * max_deviation:g} %; it is at most 1: 0.01 is one percent"
        )
    forms = [light] if isinstance(light, LightForm | Routed) else light
    several = isinstance(forms, Sequence) and len(forms) > 0 and all(isinstance(f, LightForm | Routed) for f in forms)
    if light is not None and not several:
        raise InputError(f"light must be a light form such as dendrofx.LowRank(rank=32), or several, got {light!r}")
    if not (gate is None or gate == OPTIONAL or isinstance(gate, GateForm | nn.Module)):
        raise InputError(
            f"gate must be a gate form such as dendrofx.LearnedGate(), a module, or 'optional', got {gate!r}"
        )
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        raise InputError(f"seed must be a whole number from 0 to 2^63 - 1, got {seed!r}")
