"""Replay a plan: the same branches fitted to the same data, the same tolerances, and nothing timed or decided."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import torch
from torch import fx

from dendrofx.errors import CertificateError, PlanError
from dendrofx.gates import GateForm
from dendrofx.gates.user import NotKept
from dendrofx.guarantee.budget import Budget, budget_text
from dendrofx.guarantee.certificate import Certificate
from dendrofx.guarantee.losses import reference_picks, seen
from dendrofx.plan.plan import Plan
from dendrofx.request import Request
from dendrofx.rewriting.cascade import cascade_parts
from dendrofx.rewriting.dead_rows import drop_dead_rows
from dendrofx.rewriting.module import RoutedModule
from dendrofx.rewriting.tolerances import tolerances
from dendrofx.rows.samples import SampleAnalysis
from dendrofx.search.decision import Decision
from dendrofx.search.replay_blocks import replay_blocks
from dendrofx.search.replay_cascade import replay_cascade
from dendrofx.subject import Subject
from dendrofx.values.calibration import Calibration
from dendrofx.values.covered import Named, cover, covered_by
from dendrofx.values.fingerprint import data_fingerprint


@torch.no_grad()
def replay(subject: Subject, plan: Plan, request: Request) -> Decision:
    """Return the decision that a plan describes.

    Args:
        subject: the model, all rows in its graph, and the calibration data that the plan was made with, if any.
        plan: whose origin has been checked.
        request: of it the seed, and what is checked against the plan or cannot be in it: budget, gate and output.

    Raises:
        PlanError: a routed site that the model does not have, or a certificate whose figures are not what they are here.
    """
    budget, data = request.budget, subject.data
    _check_given(plan, budget, request.gate)
    if request.output is not None and data is not None:
        _check_output(subject.original, data, plan, request.output)
    if plan.certificate is not None:
        _check_certificate(plan.certificate, plan, data)
    if plan.cascade is not None and (data is None or not data.test):
        raise PlanError("the plan routes samples, and says nothing of the data or the budget that it was made for")
    live = _live(subject, plan)
    if plan.cascade is not None:
        decision = replay_cascade(live, plan, request.seed, budget, request.gate)
    else:
        decision = replay_blocks(live.graph, data, plan, request.seed, request.gate)
    if plan.certificate is not None:
        _check_module(plan.certificate, decision.module)
        if (asked := budget or plan.certificate.budget) is not None and data is not None:
            _check_losses(plan.certificate, decision.module, live, asked)
    return decision


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


def _check_losses(shown: Certificate, module: RoutedModule, subject: Subject, budget: Budget) -> None:
    """Raise `PlanError` unless the module loses on the test samples what the certificate says."""
    original, data = subject.original, subject.data
    assert data is not None
    if (cascade := cascade_parts(module)) is not None:  # whose shared inputs are not cut
        data = data.with_shared(SampleAnalysis(original).shared)
    covered = covered_by(original, data.fit, budget.cover, strict=True)
    references = reference_picks(original, subject.graph if cascade is None else original, data.test, covered)
    found = float(seen(module, data.test, references, budget, covered).losses.sum(0).max())
    if not math.isclose(found, shown.losses, rel_tol=1e-3, abs_tol=1e-3):
        raise PlanError(
            f"the plan's certificate is not of this plan: it says that {shown.losses:g} of {shown.n} test samples were lost, and"
            f" here it is {found:g}"
        )


def _live(subject: Subject, plan: Plan) -> Subject:
    """Return the subject on live rows or on distinct ones, where the plan says so."""
    if plan.dead_rows is not None and plan.dead_rows.status == "live":
        assert subject.example is not None
        live, _ = drop_dead_rows(subject.original, plan.dead_rows.mask, subject.example)
        subject = replace(subject, graph=live)
    repeated = plan.repeated_rows
    if repeated is None or repeated.status == "refused":
        return subject
    whole = plan.cascade is not None or plan.dead_rows is not None
    return subject.on_distinct_rows(repeated.inputs, whole, repeated.groups)
