"""A plan that is decided anew: what the caller asks for must be what the plan was made for."""

from __future__ import annotations

from dendrofx.errors import InputError
from dendrofx.guarantee.budget import Budget
from dendrofx.plan.plan import Plan


def check_redecided(plan: Plan, budget: Budget | None) -> Budget | None:
    """Return the budget of a plan that is decided anew.

    Raises:
        InputError: the caller gave another, or has to give one.
    """
    if plan.budget != ("" if budget is None else str(budget)):
        there = plan.budget or f"max_deviation {plan.max_deviation:g}"
        raise InputError(f"redecide=True keeps the plan's budget, {there}: pass the same budget=, not {budget}")
    return budget
