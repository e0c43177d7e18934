"""Replaying the plan of a cascade: the same light branches and gate fitted to the same data, nothing timed, searched or tested."""

from __future__ import annotations

import torch
from torch import fx

from dendrofx.errors import PlanError
from dendrofx.gates import GateForm
from dendrofx.gates.model import ModelRows
from dendrofx.gates.user import NotKept
from dendrofx.graph.block import block_of
from dendrofx.graph.find_sites import find_sites
from dendrofx.guarantee.budget import Budget
from dendrofx.light import LightForm
from dendrofx.plan.plan import Plan
from dendrofx.rewriting.cascade import build, finite_inputs
from dendrofx.rewriting.module import RoutedModule, set_tolerances
from dendrofx.rewriting.rewrite import rewrite, use_exact
from dendrofx.rows.samples import SampleAnalysis
from dendrofx.search.block_replay import replay_blocks
from dendrofx.search.cascade.finish import CascadeRecipe
from dendrofx.search.cascade.forms import with_forms
from dendrofx.search.cascade.search import picks
from dendrofx.values.calibration import Calibration
from dendrofx.values.covered import covered_by


@torch.no_grad()
def replay_cascade(
    captured: fx.GraphModule,
    base: fx.GraphModule,
    data: Calibration,
    plan: Plan,
    seed: int,
    budget: Budget | None,
    gate: GateForm | None,
) -> tuple[RoutedModule, CascadeRecipe | None]:
    """The cascade that a plan describes, or the exact model where the plan refused one; and its recipe.

    Args:
        captured: the captured module.
        base: the same on live rows, where the plan drops dead ones.
        data: the calibration that the plan was made with.
        plan: whose origin has been checked.
        seed: of the plan.
        budget: needed where it has a metric of the caller's.
        gate: needed where it is a module of the caller's.

    Raises:
        PlanError: it cannot be made again from what is given.
    """
    assert plan.cascade is not None
    sites = [s for s in find_sites(base) if s.name in {entry.name for entry in plan.sites}]
    exact = {e.name: e.full for e in plan.sites if e.status in ("light", "exact") and e.full is not None}
    full = use_exact(
        base,
        [s for s in sites if s.name in exact],
        {s.name: exact[s.name].fit(block_of(base, s.nodes)) for s in sites if s.name in exact},
    )
    if plan.cascade.status == "refused":
        return rewrite(full, [], {}), None
    analysis = SampleAnalysis(captured)
    data = data.with_shared(analysis.shared)
    if plan.cascade.full_plan is not None:
        full = replay_blocks(base, data, plan.cascade.full_plan, seed)
    elif isinstance(plan.cascade.full, LightForm):
        full = with_forms(base, sites, dict.fromkeys([s.name for s in sites], plan.cascade.full), data, seed)
    if plan.cascade.light_plan is not None:
        light = replay_blocks(base, data, plan.cascade.light_plan, seed)
    else:
        light = with_forms(base, sites, {e.name: e.light for e in plan.sites if e.light is not None}, data, seed)
    form = gate if isinstance(plan.cascade.gate, NotKept) else plan.cascade.gate
    fit = getattr(form, "fit_model", None)
    if fit is None:
        raise PlanError("the plan's gate is a module of yours: pass it again as gate=")
    asked = budget or _budget(plan)
    covered = covered_by(captured, data.fit, asked.cover, strict=True)
    reference, outputs = (picks(m, data.gate, covered) for m in (captured, light))
    rows = ModelRows(outputs, reference, asked.losses(reference, outputs), asked.is_decision)
    finite = finite_inputs(analysis.batched, data.fit)
    decision = asked.single(covered)
    module = build(captured, light, fit(rows).eval(), full, analysis.batched, decision, finite)
    set_tolerances(module, {"model": float(plan.cascade.tolerance or 0.0)})
    return module, CascadeRecipe(captured, light, full, analysis.batched, decision)


def _budget(plan: Plan) -> Budget:
    shown = plan.certificate
    if shown is None:
        raise PlanError("the plan routes samples without a certificate: take one that transform returned")
    if (found := shown.budget) is None:
        raise PlanError(f"the plan's budget has a metric of yours, {shown.metric}: pass it again as budget=")
    return found
