"""Replaying a plan: the same branches fitted to the same data, the same tolerances, and nothing timed or decided."""

from __future__ import annotations

from functools import partial

import torch
from torch import fx

from dendrofx.block_replay import replay_blocks
from dendrofx.calibration import Calibration
from dendrofx.cascade.replay import replay_cascade
from dendrofx.covered import Named, cover, covered_by
from dendrofx.dead_rows import drop_dead_rows
from dendrofx.errors import CertificateError, PlanError
from dendrofx.finish import attach
from dendrofx.gates import GateForm
from dendrofx.gates.user import NotKept
from dendrofx.guarantee.budget import Budget
from dendrofx.inputs import Inputs
from dendrofx.module import RoutedModule
from dendrofx.plan import Plan


@torch.no_grad()
def replay(
    captured: fx.GraphModule,
    data: Calibration | None,
    plan: Plan,
    seed: int,
    example: Inputs | None,
    budget: Budget | None = None,
    gate: GateForm | None = None,
    output: Named = None,
) -> RoutedModule:
    """The module that a plan describes.

    Args:
        captured: the captured module.
        data: the calibration data that the plan was made with, if any.
        plan: whose origin has been checked.
        seed: of the plan.
        example: for the shapes in the printed graph.
        budget: that of the plan, where its metric is the caller's.
        gate: that of the plan, where it is a module of the caller's.
        output: which outputs the caller says that the plan is about.

    Raises:
        PlanError: a routed site that the model does not have, or a certificate that is for another module.
    """
    _check_given(plan, budget, gate)
    if output is not None and data is not None:
        _check_output(captured, data, plan, output)
    if plan.cascade is not None:
        assert data is not None
        live = _live(captured, plan, example)
        module, recipe = replay_cascade(captured, live, data, plan, seed, budget, gate)
        return _certified(attach(module, plan, recipe, example), plan)
    return _certified(replay_blocks(_live(captured, plan, example), data, plan, seed, example, gate), plan)


def _check_given(plan: Plan, budget: Budget | None, gate: GateForm | None) -> None:
    """Raise `PlanError` for a budget or a gate that is not the plan's."""
    if budget is not None and str(budget) != plan.budget:
        raise PlanError(
            f"the plan's budget is {plan.budget or f'max_deviation {plan.max_deviation:g}'}, not {budget}: leave it out"
        )
    gates = [s.gate for s in plan.routed] + ([plan.cascade.gate] if plan.cascade is not None else [])
    names = {str(g.name) if isinstance(g, NotKept) else str(g) for g in gates if g is not None}
    if gate is not None and names != {str(gate)}:
        raise PlanError(f"the plan says which gates: {', '.join(sorted(names)) or 'none'}, not {gate}: leave out gate=")


def _check_output(captured: fx.GraphModule, data: Calibration, plan: Plan, output: Named) -> None:
    """Raise `PlanError` for outputs that the plan is not about."""
    found = covered_by(captured, data.fit, partial(cover, asked=output), strict=False).covered
    if found != tuple(plan.outputs):
        there = ", ".join(plan.outputs) or "no output"
        raise PlanError(f"the plan's budget is about {there}, not {', '.join(found)}: leave out output=")


def _certified(module: RoutedModule, plan: Plan) -> RoutedModule:
    """The module, if the plan's certificate is for it."""
    if plan.certificate is not None:
        try:
            plan.certificate.verify(module)
        except CertificateError as error:
            raise PlanError(f"the plan was replayed, but {error}") from error
    return module


def _live(captured: fx.GraphModule, plan: Plan, example: Inputs | None) -> fx.GraphModule:
    """On live rows, where the plan says so."""
    if plan.dead_rows is None or plan.dead_rows.status == "refused":
        return captured
    assert example is not None
    return drop_dead_rows(captured, plan.dead_rows.mask, example)[0]
