"""Finishing: the plan of a decided module, what its printed graph shows, and the recipe that controls are built from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from dendrofx.block import row_macs
from dendrofx.inputs import Inputs
from dendrofx.measure import site_activity, site_compute
from dendrofx.module import RoutedModule, graph_names
from dendrofx.pipeline import Pipeline
from dendrofx.plan import Plan, SitePlan
from dendrofx.record import positional
from dendrofx.rewrite import Branches
from dendrofx.show import HEADERS, annotate_shapes
from dendrofx.sites import Refusal, Site

RECIPE = "dendrofx.recipe"


@dataclass(frozen=True)
class Recipe:
    """What a routed module was made from: enough to make it again with other gates.

    Attributes:
        captured: the module before the rewrite.
        sites: the routed sites.
        branches: by site name.
        scores: f32[N] by site name, on the rows that branches were chosen on, in units of the multiplier.
        weights: by site name; a site's tolerance is the multiplier times its weight.
    """

    captured: fx.GraphModule
    sites: tuple[Site, ...]
    branches: Mapping[str, Branches]
    scores: Mapping[str, Tensor]
    weights: Mapping[str, float]


@torch.no_grad()
def finish(module: RoutedModule, run: Pipeline, example: Inputs | None) -> RoutedModule:
    """Attach plan and recipe to a decided module, and note shapes on its graph when there is an example."""
    entries = [_entry(s, module, run) for s in run.sites]
    names = {s.name for s in run.sites}
    entries += [SitePlan(r.site, "refused", _located(r)) for r in run.refused.values() if r.site not in names]
    last = run.steps[-1] if run.steps else None
    module.plan = Plan(
        entries,
        run.options.max_deviation,
        deviation=last.upper if last else 0.0 if run.data is not None else None,
        samples=run.data.samples if run.data is not None else None,
        multiplier=last.multiplier if last else None,
    )
    branches = {n: c.branches for n, c in run.chosen.items()}
    sites = tuple(s for s in run.sites if s.name in branches)
    weights = {n: run.explored.weights[n] for n in branches}
    module.meta[RECIPE] = Recipe(run.captured, sites, branches, run.scores, weights)
    module.meta[HEADERS] = {e.name: _header(e) for e in module.plan.routed}
    if example is not None:
        annotate_shapes(module, tuple(positional(module, example)), example.samples)
    return module


def _entry(site: Site, module: RoutedModule, run: Pipeline) -> SitePlan:
    """A site's line in the plan."""
    if site.name not in run.chosen:
        return SitePlan(site.name, "refused", _located(run.refused[site.name]), site.shape)
    candidate = run.chosen[site.name]
    counts = run.steps[-1].counts[site.name] if run.steps else None
    light_share = row_macs(candidate.branches.light) / candidate.full_macs
    reason = f"light costs {100 * light_share:.1f} % of the block's multiply-adds"
    return SitePlan(
        site.name,
        "routed",
        reason if run.options.decide else f"{reason}; routed without a decision (decide=False)",
        site.shape,
        light=str(candidate.branches.light_form),
        gate=str(candidate.branches.gate_form),
        tolerance=float(module.get_buffer(f"routed.{graph_names(module)[site.name]}.tolerance")),
        activity=site_activity(counts) if counts else None,
        compute=site_compute(counts) if counts else None,
        skill=candidate.skill,
    )


def _located(refusal: Refusal) -> str:
    return refusal.reason if refusal.node is None else f"{refusal.reason} (%{refusal.node})"


def _header(entry: SitePlan) -> str:
    rate = "not calibrated" if entry.activity is None else f"full rows {100 * entry.activity:.1f} % (calibration)"
    return f"light {entry.light}   gate {entry.gate} < {entry.tolerance:.3g}   {rate}"
