"""The entries of block routing in a plan: what each site was given, or why nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from dendrofx.graph.block import row_cost
from dendrofx.graph.sites import Refusal, Site
from dendrofx.plan.entries import SitePlan
from dendrofx.rewriting.tolerances import tolerances
from dendrofx.search.blocks import BlockSpace
from dendrofx.search.estimates import CostEstimate, ExactForm
from dendrofx.search.settle import Calibrated
from dendrofx.values.counts import Counts, site_activity, site_compute


def site_entries(
    space: BlockSpace, made: Calibrated, counts: Counts, measured: Mapping[str, float] | None = None
) -> list[SitePlan]:
    """Return an entry for every candidate site.

    Args:
        space: what sites could be given.
        made: what they were given, with its tolerances.
        counts: what was executed for calibration rows; empty without data.
        measured: of routed sites that were timed alone, ms by name.
    """
    exact = space.exact_forms(made.choice)
    values = {name: float(value) for name, value in tolerances(made.module).items()}
    entries = []
    for site in space.sites:
        refusal = made.choice.refused.get(site.name)
        if site.name in made.choice.chosen:
            entries.append(_routed(site, space, made, counts, values[site.name], (measured or {}).get(site.name)))
        elif site.name in exact:
            entries.append(_exact(site, space, exact[site.name], refusal))
        else:
            assert refusal is not None
            entries.append(_refused(site, refusal, made.choice.prices.get(site.name)))
    names = {s.name for s in space.sites}
    return entries + [
        SitePlan(r.site, "refused", _located(r)) for r in made.choice.refused.values() if r.site not in names
    ]


def _routed(
    site: Site, space: BlockSpace, made: Calibrated, counts: Counts, tolerance: float, measured: float | None
) -> SitePlan:
    """Return the entry of a routed site."""
    candidate, price = made.choice.chosen[site.name], made.choice.prices[site.name]
    seen, branches = counts.get(site.name), candidate.branches
    share = row_cost(branches.light).work / candidate.full_macs
    reason = f"light costs {100 * share:.1f} % of the block's multiply-adds, weighted by bits"
    if price.break_even is not None:
        reason += f"; pays below an activity of {100 * price.break_even:.1f} %"
    if branches.full_form is not None and not branches.full_form.exact:
        reason += f"; the full branch is {branches.full_form}: the original block never runs"
    return SitePlan(
        site.name,
        "routed",
        reason if space.request.decide else f"{reason}; routed without a decision (decide=False)",
        site.shape,
        light=branches.light_form,
        gate=branches.gate_form,
        full=branches.full_form,
        tolerance=tolerance,
        weight=space.explored.weights[site.name],
        activity=site_activity(seen) if seen else None,
        compute=site_compute(seen) if seen else None,
        skill=candidate.skill,
        rows=None if price.ms is None else price.rows,
        block_ms=price.block_ms,
        predicted_ms=price.ms,
        measured_ms=measured,
        break_even=price.break_even,
    )


def _exact(site: Site, space: BlockSpace, exact: ExactForm, refusal: Refusal | None) -> SitePlan:
    """Return the entry of a site that is not routed, and runs in an exact form."""
    last = (space.tuning.measured or {})[site.name].times[-1]
    packed = dict(last.full[str(exact.form)])[last.rows]
    reason = f"{packed:.3g} ms as {exact.form}, {last.block:.3g} as it was ({last.rows} rows)"
    reason += "" if refusal is None else f"; not routed: {refusal.reason}"
    return SitePlan(
        site.name,
        "exact",
        reason,
        site.shape,
        full=exact.form,
        rows=last.rows,
        block_ms=last.block,
        predicted_ms=packed,
    )


def _refused(site: Site, refusal: Refusal, price: CostEstimate | None) -> SitePlan:
    """Return the entry of a site that stays as it is, with what the cheapest candidate would have taken, where it was timed."""
    entry = SitePlan(site.name, "refused", _located(refusal), site.shape)
    if price is None or price.ms is None:
        return entry
    timed = replace(entry, rows=price.rows, block_ms=price.block_ms)
    return replace(timed, predicted_ms=price.ms, break_even=price.break_even)


def _located(refusal: Refusal) -> str:
    return refusal.reason if refusal.node is None else f"{refusal.reason} (%{refusal.node})"
