"""Replaying a plan: the same branches fitted to the same data, the same tolerances, and nothing timed or decided."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import fx

from dendrofx.errors import CertificateError, PlanError
from dendrofx.finish import attach
from dendrofx.gates import GateForm
from dendrofx.gates.user import NotKept
from dendrofx.guarantee.budget import Budget, budget_text
from dendrofx.guarantee.certificate import Certificate
from dendrofx.guarantee.losses import counted_losses, reference_picks
from dendrofx.plan.plan import Plan
from dendrofx.rewriting.cascade import cascade_parts
from dendrofx.rewriting.dead_rows import drop_dead_rows
from dendrofx.rewriting.module import RoutedModule, tolerances
from dendrofx.rows.samples import SampleAnalysis
from dendrofx.search.block_replay import replay_blocks
from dendrofx.search.cascade.replay import replay_cascade
from dendrofx.values.calibration import Calibration
from dendrofx.values.covered import Named, cover, covered_by
from dendrofx.values.fingerprint import data_fingerprint
from dendrofx.values.inputs import Inputs


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
        PlanError: a routed site that the model does not have, or a certificate whose figures are not what they are here.
    """
    _check_given(plan, budget, gate)
    if output is not None and data is not None:
        _check_output(captured, data, plan, output)
    if plan.certificate is not None:
        _check_certificate(plan.certificate, plan, data)
    if plan.cascade is not None:
        if data is None or not data.test:
            raise PlanError("the plan routes samples, and says nothing of the data or the budget that it was made for")
        data = data.with_shared(SampleAnalysis(captured).shared)
        live = _live(captured, plan, example)
        module, recipe = replay_cascade(captured, live, data, plan, seed, budget, gate)
        made = attach(module, plan, recipe, example)
    else:
        live = _live(captured, plan, example)
        made = replay_blocks(live, data, plan, seed, example, gate)
    if plan.certificate is not None:
        _check_module(plan.certificate, made)
        if (asked := budget or plan.certificate.budget) is not None and data is not None:
            _check_losses(plan.certificate, made, captured, live, data, asked)
    return made


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


def _check_certificate(shown: Certificate, plan: Plan, data: Calibration | None) -> None:
    """Raise `PlanError` unless a plan's certificate follows from its figures and is of this plan and these data."""
    test, origin = [] if data is None else data.test, plan.origin
    assert origin is not None  # it was checked
    _check_same("budget", budget_text(shown.metric, shown.output, shown.alpha, 1 - shown.delta), plan.budget)
    _check_same("n", shown.n, sum(b.samples for b in test))
    _check_same("inputs", shown.inputs, data_fingerprint(test))
    _check_same("model", shown.model, origin.model)
    _check_same("machine", shown.machine, origin.cpu)
    _check_same("dendrofx", shown.dendrofx, origin.dendrofx)
    _check_same("torch", shown.torch, origin.torch)
    try:
        shown.check_figures()
    except CertificateError as error:
        raise PlanError(f"the plan cannot be replayed: {error}") from error


def _check_module(shown: Certificate, module: RoutedModule) -> None:
    """Raise `PlanError` unless a certificate is for what a plan made."""
    made = {name: float(tolerance) for name, tolerance in tolerances(module).items()}
    kept = {
        name: float(torch.tensor(value)) for name, value in shown.thresholds.items()
    }  # in float32, as tolerances are
    _check_same("thresholds", kept, made)
    try:
        shown.verify(module)
    except CertificateError as error:
        raise PlanError(f"the plan was replayed, but {error}") from error


def _check_same(name: str, there: object, here: object) -> None:
    if there != here:
        raise PlanError(f"the plan's certificate is not of this plan: {name} {there} there, {here} here")


def _check_losses(
    shown: Certificate,
    module: RoutedModule,
    captured: fx.GraphModule,
    live: fx.GraphModule,
    data: Calibration,
    budget: Budget,
) -> None:
    """Raise `PlanError` unless the module loses on the test samples what the certificate says."""
    rows = live if cascade_parts(module) is None else captured  # see `BlockFront` and `CascadeModels`
    covered = covered_by(captured, data.fit, budget.cover, strict=True)
    references = reference_picks(captured, rows, data.test, covered)
    found = float(counted_losses(module, data.test, references, budget, covered)[0].sum(0).max())
    if not math.isclose(found, shown.losses, rel_tol=1e-3, abs_tol=1e-3):
        raise PlanError(
            f"the plan's certificate is not of this plan: it says that {shown.losses:g} of {shown.n} test samples were lost, and"
            f" here it is {found:g}"
        )


def _live(captured: fx.GraphModule, plan: Plan, example: Inputs | None) -> fx.GraphModule:
    """On live rows, where the plan says so."""
    if plan.dead_rows is None or plan.dead_rows.status == "refused":
        return captured
    assert example is not None
    return drop_dead_rows(captured, plan.dead_rows.mask, example)[0]
