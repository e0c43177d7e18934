"""Replay block routing: the same branches fitted to the same data, the same tolerances, and nothing timed or decided."""

from __future__ import annotations

import torch
from torch import fx, nn

from dendrofx.errors import PlanError
from dendrofx.gates import GateForm, UserGate
from dendrofx.gates.user import NotKept
from dendrofx.graph.block import block_of, finite_rows
from dendrofx.graph.find_sites import find_sites
from dendrofx.graph.record import record_in_turn
from dendrofx.graph.site_moments import fit_moments
from dendrofx.graph.sites import Site, Sites
from dendrofx.plan.entries import SitePlan
from dendrofx.plan.plan import Plan
from dendrofx.rewriting.recipe import Recipe
from dendrofx.rewriting.rewrite import use_exact
from dendrofx.search.choose import Candidate, SiteData, candidates
from dendrofx.search.decision import Decision
from dendrofx.values.calibration import Calibration


@torch.no_grad()
def replay_blocks(
    live: fx.GraphModule,
    data: Calibration | None,
    plan: Plan,
    seed: int,
    gate: GateForm | None = None,
) -> Decision:
    """Return the decision that a plan's sites describe.

    Args:
        live: the captured module, on live rows where the plan drops dead ones.
        data: the calibration data that the plan was made with, if any.
        plan: of its sites.
        seed: of the plan.
        gate: that of the plan, where it is a module of the caller's.

    Raises:
        PlanError: a routed site that the model does not have.
    """
    captured, sites = _exact(live, plan)
    by_name = {s.name: s for s in sites}
    if missing := [s.name for s in plan.routed if s.name not in by_name]:
        raise PlanError(f"the plan routes {missing}, which the model does not have; it has {sorted(by_name)}")
    routed = [by_name[s.name] for s in plan.routed]
    sets = [] if data is None else [data.fit, data.gate, data.choose]
    # of all sites that were explored: how many rows are kept depends on how many sites there are
    explored = [by_name[s.name] for s in plan.sites if s.name in by_name] if routed else []
    entries, fitted = {s.name: s for s in plan.routed}, {}
    moments = fit_moments(data, live, explored)
    for site, recorded in record_in_turn(live, explored, sets, seed):
        if site.name not in entries:
            continue
        block = block_of(live, site.nodes)
        own = [moments.get(site.name), None, None]
        parts = [finite_rows(block, r.rows[site.name], of) for r, of in zip(recorded, own, strict=False)]
        rows = SiteData(*parts) if parts else SiteData.without_rows(block, site.widths[0], seed)
        fitted[site.name] = _fitted(site, entries[site.name], rows, seed, gate)
    weights = {s.name: 1.0 if s.weight is None else s.weight for s in plan.routed}
    scores = {name: c.score / weights[name] for name, c in fitted.items()}
    recipe = Recipe(captured, tuple(routed), {name: c.branches for name, c in fitted.items()}, scores, weights)
    module = recipe.build({s.name: s.tolerance for s in plan.routed if s.tolerance is not None})
    return Decision(module, recipe, plan)


def _exact(captured: fx.GraphModule, plan: Plan) -> tuple[fx.GraphModule, Sites]:
    """Return the graph with the plan's exact forms, and the sites before they were put in."""
    sites = find_sites(captured)
    forms = {s.name: s.full for s in plan.sites if s.status == "exact" and s.full is not None}
    chosen = [s for s in sites if s.name in forms]
    made: dict[tuple[str, ...], nn.Module] = {}
    for site in chosen:
        if site.linears not in made:
            made[site.linears] = forms[site.name].fit(block_of(captured, site.nodes))
    return use_exact(captured, chosen, {s.name: made[s.linears] for s in chosen}), sites


def _fitted(site: Site, entry: SitePlan, rows: SiteData, seed: int, gate: GateForm | None) -> Candidate:
    form = gate if isinstance(gate, UserGate) else entry.gate
    if isinstance(entry.gate, NotKept) and form is entry.gate:
        raise PlanError(
            f"the plan's gate at '{site.name}' is a module of yours, {entry.gate.name}: pass it again as gate="
        )
    if entry.light is None or form is None:
        raise PlanError(f"the plan routes '{site.name}' without a light form or a gate")
    found, reasons = candidates(rows, [entry.light], form, entry.full, seed)
    if not found:
        raise PlanError(f"the plan's {entry.light} no longer fits site '{site.name}': {'; '.join(reasons)}")
    return found[0]
