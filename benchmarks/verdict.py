"""Whether routing earns its place, in plain sentences.

Routing must beat what a user could have had without it: the cheapest light branches that keep the same budget on every row
(`static-light`). And its gate must beat a random one at the same activity.
"""

from __future__ import annotations

import math

from benchmarks.records import Record, Row
from benchmarks.variants import Peer
from dendrofx import controls

# Differences within the machine's own noise are ties.
TIE = 0.03
# The largest deviation of any test sample at which a peer is a rival of a row of ours; what the row itself has, where that is more.
PEER_LIMITS = {"lossless": 1e-5, "routed-1%": 1e-2, "routed-7.5%": 0.14}


def verdict(record: Record) -> list[str]:
    """The sentences under a table."""
    lines = []
    routed, scripted = record.routed, record.row("scripted")
    assert routed.timing is not None
    assert scripted is not None
    prepared = record.prepared
    if prepared.refused:
        reasons = "; ".join(f"{s.name}: {s.reason}" for s in prepared.plan.sites)
        lines.append(
            "transform refused every site and returned the original; the rows routed, always-*, random and oracle show"
            f" decide=False, for those who want to look. Reasons: {reasons}"
        )
    gain = record.speedup(routed, "scripted") or 1.0
    pace = f"{gain:.2f} x the scripted baseline" if gain >= 1 else f"SLOWER than the scripted baseline ({gain:.2f} x)"
    lines.append(f"{prepared.main} is {pace} and {_kept(record, routed)}")
    lines += _against_peers(record)
    if not prepared.routed.plan.rewrites:
        return [
            *lines,
            f"no gate and no light branch runs in {prepared.main}: the rows always-*, random and oracle are left out",
        ]
    lines.append(_against_static(record, routed))
    lines.append(_against_random(record, routed))
    full = record.row("always-full")
    if full is not None and full.timing is not None and scripted.timing is not None:
        over = full.timing.p50 / scripted.timing.p50 - 1
        lines.append(
            f"overhead where routing saves nothing (always-full over scripted): {100 * over:+.1f} %{_light_share(record)}"
        )
    return lines


def _kept(record: Record, routed: Row) -> str:
    """Whether the budget is kept on the test samples, and whether that was shown beforehand."""
    plan = record.prepared.plan
    if plan.budget:
        loss = f"; on the test samples, which served nothing else, it is {_percent(routed.quality.loss)}"
        return f"its budget is {plan.certificate or f'not certified ({plan.refusal})'}{loss}"
    kept = "keeps" if routed.quality.mean <= plan.max_deviation else "MISSES"
    of = f" of {routed.quality.output}" if routed.quality.output else ""
    return f"{kept} the budget: mean deviation{of} {routed.quality.mean:.2e}, budget {plan.max_deviation:g}"


def _against_peers(record: Record) -> list[str]:
    """Each of our rows against the fastest peer that deviates no more than the row's limit, on its worst sample."""
    peers = [r for r in record.rows if isinstance(r.variant.module, Peer) and r.timing is not None]
    lines = []
    for name in record.prepared.modules if peers else ():
        mine = record.row(name)
        assert mine is not None
        assert mine.timing is not None
        limit = max(PEER_LIMITS.get(name, 0.0), mine.quality.max)
        fair = [p for p in peers if p.quality.max <= limit]
        if not fair:
            lines.append(f"{name}: no peer keeps a deviation of {limit:.2g} on every test sample")
            continue
        best = min(fair, key=lambda p: p.timing.p50 if p.timing is not None else math.inf)
        assert best.timing is not None
        pace = best.timing.p50 / mine.timing.p50
        lines.append(
            f"{name} is {pace:.2f} x as fast as {best.variant.name}, the fastest peer that deviates at most {limit:.2g}"
            " on every test sample"
        )
    return [*lines, *(f"{name} did not run: {reason}" for name, reason in record.missing.items())]


def _against_static(record: Record, routed: Row) -> str:
    static = record.row("static-light")
    limit = record.prepared.limit
    if static is None:
        plan = record.prepared.static_plans["static-light"]
        reasons = plan.refusal or "; ".join(dict.fromkeys(s.reason for s in plan.sites if s.status == "refused"))
        earns = _loss(routed) <= limit and (record.speedup(routed, "scripted") or 0) > 1 + TIE
        place = (
            "routing earns its place" if earns else "routing has no static rival, and does not earn its place either"
        )
        return f"{place}: no light form keeps the budget on every row ({reasons})"
    assert static.timing is not None
    assert routed.timing is not None
    plan = record.prepared.static_plans["static-light"]
    forms = (
        plan.cascade.light if plan.cascade is not None else ", ".join(dict.fromkeys(f"{s.light}" for s in plan.routed))
    )
    ratio = static.timing.p50 / routed.timing.p50
    if _loss(static) > limit >= _loss(routed):
        return f"routing earns its place: static-light ({forms}) misses the budget on the test rows, routed keeps it"
    tails = f"p99 deviation {routed.quality.p99:.1e} routed, {static.quality.p99:.1e} static-light"
    if routed.quality.loss is not None:
        losses = f"{_percent(routed.quality.loss)} routed, {_percent(static.quality.loss)} static-light"
        tails = f"{record.prepared.budget_name} {losses}"
    if ratio > 1 + TIE:
        return f"routing earns its place: {ratio:.2f} x as fast as static-light ({forms}) in the same budget; {tails}"
    if ratio > 1 - TIE:
        return f"routing ties with static-light ({forms}) in the same budget, {ratio:.2f} x; {tails}"
    return (
        f"routing does NOT earn its place here: static-light ({forms}), one light form on every row in the same budget, is"
        f" {1 / ratio:.2f} x as fast; {tails}"
    )


def _against_random(record: Record, routed: Row) -> str:
    random, light = record.row("random"), record.row("always-light")
    assert random is not None
    assert light is not None
    what = record.prepared.budget_name
    means = [f"{_loss(row):.2e} {row.variant.name}" for row in (routed, random, light)]
    against = f"mean {what} {', '.join(means)}"
    if _loss(routed) < _loss(random) * (1 - TIE):
        return f"the gate beats a random choice of as many rows: {against}"
    return f"the gate does NOT beat a random choice of as many rows: {against}"


def _loss(row: Row) -> float:
    """The mean loss that the budget is about: its own metric where one is certified, the deviation elsewhere."""
    return row.quality.mean if row.quality.loss is None else row.quality.loss


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.3g} %"


def _light_share(record: Record) -> str:
    """Where a gate reads the light branch, always-full runs that too: its own share of the time."""
    cascade = record.prepared.plan.cascade is not None
    branches = [] if cascade else controls.recipe(record.prepared.routed).branches.values()
    readers = cascade or [b for b in branches if b.gate_form.reads != "input"]
    light, scripted = record.row("always-light"), record.row("scripted")
    if not readers or light is None or light.timing is None or scripted is None or scripted.timing is None:
        return ""
    return (
        f", of which the light branch, which the gate reads, up to {100 * light.timing.p50 / scripted.timing.p50:.1f} %"
    )
