"""Finishing a cascade: its plan, and the recipe that controls are built from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

from dendrofx.finish import attach
from dendrofx.graph.find_sites import without_linears
from dendrofx.guarantee.certificate import Certificate
from dendrofx.plan.entries import DeadRowsPlan, SitePlan
from dendrofx.plan.origin import Origin
from dendrofx.plan.plan import Plan
from dendrofx.rewriting.module import RoutedModule
from dendrofx.rewriting.rewrite import rewrite
from dendrofx.search.cascade.run import Cascades
from dendrofx.values.inputs import Inputs
from dendrofx.values.meta import CAPTURE


@dataclass(frozen=True)
class CascadeRecipe:
    """What a cascade was made from.

    Attributes:
        captured: the module before the rewrite.
        light, full: the two models.
        batched: the inputs that carry samples.
        decision: which output the gate reads.
    """

    captured: fx.GraphModule
    light: RoutedModule
    full: fx.GraphModule
    batched: tuple[str, ...]
    decision: int


@torch.no_grad()
def finish_cascade(
    module: RoutedModule | None,
    run: Cascades,
    example: Inputs | None,
    origin: Origin,
    dead_rows: DeadRowsPlan | None,
    certificate: Certificate | None,
) -> RoutedModule:
    """Attach plan and recipe to a cascade, or without one to what is left: the original, on live rows where that wins."""
    assert run.plan is not None
    models = run.models
    exact = module is not None or run.exact_lost is None
    plan = Plan(
        _entries(run, exact),
        run.options.max_deviation,
        samples=run.models.data.samples,
        models=run.model_times,
        origin=origin,
        capture=str(models.captured.meta.get(CAPTURE, "")),
        dead_rows=dead_rows if exact else _unused(dead_rows, run.exact_lost),
        cascade=run.plan,
        budget=str(run.budget),
        refusal=run.plan.reason,
        certificate=certificate,
        outputs=dict.fromkeys(models.covered.covered),
        not_covered=list(models.covered.left),
        timing="" if run.timer is None else "; ".join(run.timer.notes),
        no_sites="" if len(models.sites) else without_linears(models.captured),
    )
    recipe = None
    if module is not None and run.chosen is not None:
        recipe = CascadeRecipe(models.captured, run.chosen.light.module, models.full, models.batched, models.decision)
    left = rewrite(models.full if exact else models.captured, [], {}) if module is None else module
    return attach(left, plan, recipe, example)


def _unused(dead_rows: DeadRowsPlan | None, why: str | None) -> DeadRowsPlan | None:
    return None if dead_rows is None else DeadRowsPlan(dead_rows.mask, "refused", why or "")


def _entries(run: Cascades, exact: bool) -> list[SitePlan]:
    """A line per site."""
    light = {} if run.chosen is None else {n: b.light_form for n, b in run.chosen.light.branches.items()}
    inside = run.chosen is not None and run.chosen.light.plan is not None
    reason = "routed in the light model" if inside else "in the light model"
    entries = []
    for site in run.models.sites:
        form = run.models.exact.get(site.name)
        full = form[0] if form is not None and exact else None
        if site.name in light:
            entries.append(SitePlan(site.name, "light", reason, site.shape, light=light[site.name], full=full))
        elif full is not None:
            entries.append(SitePlan(site.name, "exact", "in the full model", site.shape, full=full))
        else:
            entries.append(SitePlan(site.name, "refused", "as it was in every model", site.shape))
    return entries
