"""Finishing: the plan of a decided module, what its printed graph shows, and the recipe that controls are built from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from dendrofx.graph.block import block_of, row_cost
from dendrofx.graph.find_sites import without_linears
from dendrofx.graph.record import positional
from dendrofx.graph.show import annotate_shapes
from dendrofx.graph.sites import Refusal, Site
from dendrofx.guarantee.certificate import Certificate
from dendrofx.light import LightForm, Prepacked
from dendrofx.machine.memory import trim
from dendrofx.plan.entries import DeadRowsPlan, SitePlan
from dendrofx.plan.origin import Origin
from dendrofx.plan.plan import Plan
from dendrofx.rewriting.module import RoutedModule, graph_names, name_as_original
from dendrofx.rewriting.rewrite import Branches
from dendrofx.search.pipeline import Pipeline
from dendrofx.search.stopwatch import Part
from dendrofx.search.verify import site_alone
from dendrofx.values.counts import site_activity, site_compute
from dendrofx.values.inputs import Inputs
from dendrofx.values.meta import CAPTURE, HEADERS, RECIPE


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
def finish(
    module: RoutedModule,
    run: Pipeline,
    example: Inputs | None,
    origin: Origin | None,
    dead_rows: DeadRowsPlan | None = None,
    budget: str = "",
    refusal: str = "",
    certificate: Certificate | None = None,
) -> RoutedModule:
    """Attach plan and recipe to a decided module, and note shapes on its graph when there is an example."""
    alone = _measured(module, run)
    entries = [_entry(s, module, run, alone.get(s.name)) for s in run.sites]
    names = {s.name for s in run.sites}
    entries += [SitePlan(r.site, "refused", _located(r)) for r in run.refused.values() if r.site not in names]
    last, covered = run.steps[-1] if run.steps else None, run.options.covered
    plan = Plan(
        entries,
        run.options.max_deviation,
        deviation=None if certificate is not None else last.upper if last else 0.0 if run.data is not None else None,
        samples=run.data.samples if run.data is not None else None,
        multiplier=last.multiplier if last and certificate is None else None,
        models=run.model_times,
        origin=origin,
        capture=str(run.captured.meta.get(CAPTURE, "")),
        dead_rows=dead_rows,
        budget=budget,
        refusal=refusal,
        certificate=certificate,
        outputs=_reached(run, certificate) if covered is not None else {},
        not_covered=list(covered.left) if covered is not None else [],
        timing="" if run.timer is None else "; ".join(run.timer.notes),
        no_sites="" if entries else without_linears(run.captured),
    )
    branches = {n: c.branches for n, c in run.chosen.items()}
    sites = tuple(s for s in run.sites if s.name in branches)
    weights = {n: run.explored.weights[n] for n in branches}
    return attach(module, plan, Recipe(run.with_exact(), sites, branches, run.scores, weights), example)


def _reached(run: Pipeline, certificate: Certificate | None) -> dict[str, float | None]:
    """By covered output the limit of its mean deviation; None where the budget is about other losses, or none was measured."""
    assert run.options.covered is not None
    names = run.options.covered.covered
    if certificate is not None or run.options.budget is not None:
        return dict.fromkeys(names)
    return dict(zip(names, run.steps[-1].limits, strict=True)) if run.steps else dict.fromkeys(names, 0.0)


def attach(module: RoutedModule, plan: Plan, recipe: object, example: Inputs | None) -> RoutedModule:
    """Give a module its plan, its recipe, and the notes that its printed graph shows."""
    module.plan = plan
    name_as_original(module)
    module.meta[RECIPE] = recipe
    module.meta[HEADERS] = {e.name: _header(e) for e in plan.routed}
    if plan.cascade is not None and plan.rewrites:
        module.meta[HEADERS] = {"model": str(plan.cascade)}
    if example is not None:
        trim()  # what came before, the last race among it
        annotate_shapes(module, tuple(positional(module, example)), example.samples)
    return module


def _entry(site: Site, module: RoutedModule, run: Pipeline, measured_ms: float | None) -> SitePlan:
    """A site's line in the plan."""
    if (exact := run.exact_forms().get(site.name)) is not None:
        return _exact_entry(site, exact[0], run)
    if site.name not in run.chosen:
        return SitePlan(site.name, "refused", _located(run.refused[site.name]), site.shape)
    candidate, price = run.chosen[site.name], run.prices[site.name]
    counts = run.steps[-1].counts[site.name] if run.steps else None
    branches = candidate.branches
    share = row_cost(branches.light).work / candidate.full_macs
    reason = f"light costs {100 * share:.1f} % of the block's multiply-adds, weighted by bits"
    if price.break_even is not None:
        reason += f"; pays below an activity of {100 * price.break_even:.1f} %"
    if branches.full_form is not None and not isinstance(branches.full_form, Prepacked):
        reason += f"; the full branch is {branches.full_form}: the original block never runs"
    return SitePlan(
        site.name,
        "routed",
        reason if run.options.decide else f"{reason}; routed without a decision (decide=False)",
        site.shape,
        light=branches.light_form,
        gate=branches.gate_form,
        full=branches.full_form,
        tolerance=_tolerance(module, site),
        weight=run.explored.weights[site.name],
        activity=site_activity(counts) if counts else None,
        compute=site_compute(counts) if counts else None,
        skill=candidate.skill,
        rows=None if price.ms is None else price.rows,
        block_ms=price.block_ms,
        predicted_ms=price.ms,
        measured_ms=measured_ms,
        break_even=price.break_even,
    )


def _exact_entry(site: Site, form: LightForm, run: Pipeline) -> SitePlan:
    """The line of a site that is not routed, and runs in an exact form."""
    last = run.tuning.measured[site.name].times[-1]
    packed = dict(last.full[str(form)])[last.rows]
    reason = f"{packed:.3g} ms as {form}, {last.block:.3g} as it was ({last.rows} rows)"
    refused = run.refused.get(site.name)
    reason += "" if refused is None else f"; not routed: {refused.reason}"
    return SitePlan(
        site.name, "exact", reason, site.shape, full=form, rows=last.rows, block_ms=last.block, predicted_ms=packed
    )


def _measured(module: RoutedModule, run: Pipeline) -> dict[str, float]:
    """The routed sites alone, in turns, timed where their parts were: ms by name."""
    timed = [s for s in run.sites if s.name in run.chosen and s.name in run.tuning.measured]
    if run.timer is None or not timed:
        return {}
    if run.timer.expired:
        run.timer.ran_out("routed sites were not timed alone")
        return {}
    rows, calls = run.rows(timed), dict[Part, tuple[nn.Module, Sequence[Inputs]]]()
    for site in timed:
        block = block_of(run.captured, site.nodes)
        alone = site_alone(block, run.chosen[site.name].branches, _tolerance(module, site))
        calls[site.name,] = (alone, [Inputs((run.tuning.batches(site.name, rows[site.name])[-1],))])
    with run.timer.interruptible():
        return {site: ms for (site,), ms in run.timer.calls(calls).items()}
    return {}


def _tolerance(module: RoutedModule, site: Site) -> float:
    return float(module.get_buffer(f"routed.{graph_names(module)[site.name]}.tolerance"))


def _located(refusal: Refusal) -> str:
    return refusal.reason if refusal.node is None else f"{refusal.reason} (%{refusal.node})"


def _header(entry: SitePlan) -> str:
    rate = "not calibrated" if entry.activity is None else f"full rows {100 * entry.activity:.1f} % (calibration)"
    full = "" if entry.full is None else f"   full {entry.full}"
    return f"light {entry.light}   gate {entry.gate} < {entry.tolerance:.3g}{full}   {rate}"
