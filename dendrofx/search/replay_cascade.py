"""Replay the plan of a cascade: the same light branches and gate fitted to the same data, nothing timed, searched or tested."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from dendrofx.errors import PlanError
from dendrofx.gates import GateForm
from dendrofx.gates.form import ModelRows
from dendrofx.gates.user import NotKept
from dendrofx.graph.block import block_of
from dendrofx.graph.cuts import CUT
from dendrofx.graph.find_sites import find_sites
from dendrofx.guarantee.budget import Budget
from dendrofx.light import LightForm
from dendrofx.light.exits import Exit
from dendrofx.plan.plan import Plan
from dendrofx.rewriting.module import RoutedModule
from dendrofx.rewriting.recipe import CascadeRecipe
from dendrofx.rewriting.rewrite import rewrite, use_exact
from dendrofx.search.cascade.exits import cuts_of, fitted_exit
from dendrofx.search.cascade.forms import with_forms
from dendrofx.search.cascade.leaving import then_of
from dendrofx.search.cascade.outputs import picks
from dendrofx.search.cascade.proved import Proved
from dendrofx.search.decision import Decision
from dendrofx.search.replay_blocks import replay_blocks
from dendrofx.subject import Subject
from dendrofx.values.counts import CASCADE


@torch.no_grad()
def replay_cascade(subject: Subject, plan: Plan, seed: int, budget: Budget | None, gate: GateForm | None) -> Decision:
    """Return the cascade that a plan describes, or the exact model where the plan refused one.

    Args:
        subject: its graph on live rows, where the plan drops dead ones; the calibration that the plan was made with.
        plan: whose origin has been checked.
        seed: of the plan.
        budget: needed where it has a metric of the caller's.
        gate: needed where it is a module of the caller's.

    Raises:
        PlanError: it cannot be made again from what is given.
    """
    cascade = plan.cascade
    assert cascade is not None
    base = subject.graph
    sites = [s for s in find_sites(base) if s.name in {entry.name for entry in plan.sites}]
    fulls = {e.name: e.full for e in plan.sites if e.status in ("light", "exact") and e.full is not None}
    exact = {name: form for name, form in fulls.items() if not cascade.found}
    replaced = [s for s in sites if s.name in exact]
    full = use_exact(base, replaced, {s.name: exact[s.name].fit(block_of(base, s.nodes)) for s in replaced})
    if cascade.status == "refused":
        return Decision(rewrite(full, [], {}), None, plan)
    asked = budget or _budget(plan)
    proved = Proved.of(subject, asked, None)
    data = proved.data
    if cascade.full_plan is not None:
        full = replay_blocks(base, data, cascade.full_plan, seed).module
    elif cascade.found:
        full = with_forms(base, sites, fulls, data, seed)
    elif isinstance(cascade.full, LightForm):
        full = with_forms(base, sites, dict.fromkeys([s.name for s in sites], cascade.full), data, seed)
    left = None if cascade.exit is None else _Left.of(proved, full, cascade.exit)
    if left is not None:
        light, outputs = left.light, left.outputs
    elif cascade.light_plan is not None:
        light = replay_blocks(base, data, cascade.light_plan, seed).module
    else:
        light = with_forms(base, sites, {e.name: e.light for e in plan.sites if e.light is not None}, data, seed)
    form = gate if isinstance(cascade.gate, NotKept) else cascade.gate
    if form is None:
        raise PlanError("the plan's gate is a module of yours: pass it again as gate=")
    reference = picks(subject.original, data.gate, proved.covered)
    if left is None:
        outputs = picks(light, data.gate, proved.covered)

    def fitted(outputs: Tensor) -> nn.Module:
        return form.fit(ModelRows(outputs, reference, asked.losses(reference, outputs), asked.is_decision)).eval()

    rest: fx.GraphModule | CascadeRecipe = full if left is None else left.rest
    if left is not None and left.second is not None:
        then, behind, given = left.second
        rest = CascadeRecipe(
            left.rest, then, behind, fitted(given), (*proved.batched, CUT), proved.decision, (), left.rest
        )
    recipe = CascadeRecipe(
        subject.original,
        light,
        rest,
        fitted(outputs),
        proved.batched,
        proved.decision,
        proved.finite,
        None if left is None else full,
    )
    return Decision(recipe.build({CASCADE: float(cascade.tolerance or 0.0)}), recipe, plan)


@dataclass(frozen=True)
class _Left:
    """An exit of a full model, again: what runs up to it, what runs behind it, and what its gate is fitted to."""

    light: RoutedModule
    rest: RoutedModule
    outputs: Tensor
    second: tuple[RoutedModule, RoutedModule, Tensor] | None = None

    @staticmethod
    def of(proved: Proved, full: fx.GraphModule, leaves: Exit) -> _Left:
        """Fit it as it was fitted."""
        places = {c.after: c for c in cuts_of(proved.subject.original, None)}
        if any(after not in places for after in leaves.after):
            raise PlanError(f"the plan leaves the model early by {leaves}, where this model has no cut")
        first = fitted_exit(proved, full, places[leaves.after[0]])
        if first is None:
            raise PlanError(f"the plan leaves the model early by {leaves}, where this model has no cut")
        second = None
        if len(leaves.after) > 1:
            made, inner = then_of(proved, full, first, places[leaves.after[1]])
            second = (inner.with_head(made.head), inner.rest, proved.left_out(made.left_out[proved.decision])[0])
        outputs = proved.left_out(first.left_out[proved.decision])[0]
        return _Left(first.halves.with_head(first.head), first.halves.rest, outputs, second)


def _budget(plan: Plan) -> Budget:
    shown = plan.certificate
    if shown is None:
        raise PlanError("the plan routes samples without a certificate: take one that transform returned")
    if (found := shown.budget) is None:
        raise PlanError(f"the plan's budget has a metric of yours, {shown.metric}: pass it again as budget=")
    return found
