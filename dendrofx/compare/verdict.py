"""Whether routing earns its place, in plain sentences.

Routing must beat what a user could have had without it: the cheapest light branches that keep the same budget on every row
(`static-light`). And its gate must beat a random one at the same activity.
"""

from __future__ import annotations

import math

from dendrofx import Plan
from dendrofx.compare import controls
from dendrofx.compare.records import Record, Row
from dendrofx.compare.variants import Peer

# Differences within the machine's own noise are ties.
TIE = 0.03
# The largest deviation of any test sample at which a peer is a rival of a row of ours; what the row itself has, where that is more.
_ORIGINAL = "refused every site and returned the original"
PEER_LIMITS = {"lossless": 1e-5, "routed-1%": 1e-2, "routed-7.5%": 0.14}


def verdict(record: Record) -> list[str]:
    """The sentences under a table: none says what another one denies, and none is said twice."""
    lines = [
        *_refused(record),
        _pace(record),
        *([] if record.unreliable else _against_peers(record)),
        *_missing(record),
    ]
    if not record.prepared.routed.plan.rewrites:
        lines.append(_without_controls(record))
    else:
        judged = not (record.prepared.refused or record.unreliable)
        lines += [_against_static(record)] if judged else []
        lines += [_against_random(record), *([] if record.unreliable else _overhead(record))]
    return list(dict.fromkeys(lines))


def _refused(record: Record) -> list[str]:
    """Where `transform` routed nothing and the rows show what it would have been: that, and why."""
    prepared = record.prepared
    if not prepared.refused or not prepared.routed.plan.rewrites:
        return []
    exact = any(s.status == "exact" for s in prepared.plan.sites)
    returned = "routed nothing and returned exact forms of the original" if exact else _ORIGINAL
    return [
        f"transform {returned}; the rows {prepared.main}, always-*, random and oracle show"
        f" decide=False, for those who want to look. Reasons: {_reasons(prepared.plan)}"
    ]


def _without_controls(record: Record) -> str:
    """Where no gate runs: what does, and which rows that leaves out."""
    prepared, plan = record.prepared, record.prepared.plan
    exact = any(s.status == "exact" for s in plan.sites) or plan.dead_rows is not None
    why = f"transform {_ORIGINAL} ({_reasons(plan)}): " if prepared.refused and not exact and not plan.budget else ""
    return (
        f"{why}no gate and no light branch runs in {prepared.main}: the rows always-*, random and oracle are left out"
    )


def _reasons(plan: Plan) -> str:
    """Each reason once, behind the sites that it is about."""
    sites: dict[str, list[str]] = {}
    for site in plan.sites:
        sites.setdefault(site.reason, []).append(site.name)
    return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in sites.items()) or plan.no_sites


def _pace(record: Record) -> str:
    """How fast the main row is, and whether it keeps its budget."""
    prepared, routed = record.prepared, record.routed
    shown = f"{prepared.main} (decide=False)" if prepared.refused and prepared.routed.plan.rewrites else prepared.main
    if record.unreliable:
        return f"no speedup is claimed for {shown}, for its times are UNRELIABLE: it {_kept(record, routed)}"
    gain = _gain(record)
    pace = f"{gain:.2f} x the scripted baseline" if gain >= 1 else f"SLOWER than the scripted baseline ({gain:.2f} x)"
    return f"{shown} is {pace} and {_kept(record, routed)}"


def _overhead(record: Record) -> list[str]:
    """What routing costs where every row is hard."""
    full, scripted = record.row("always-full"), record.row("scripted")
    if full is None or full.timing is None or scripted is None or scripted.timing is None:
        return []
    over = 100 * (full.timing.p50 / scripted.timing.p50 - 1)
    return [f"overhead where routing saves nothing (always-full over scripted): {over:+.1f} %{_light_share(record)}"]


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
    return lines


def _missing(record: Record) -> list[str]:
    return [f"{name} did not run: {reason}" for name, reason in record.missing.items()]


def _against_static(record: Record) -> str:
    """Whether routing earns its place: within its budget, faster than the original, and than one light form on every row."""
    static, limit = record.row("static-light"), record.prepared.limit
    plan = record.prepared.static_plans.get("static-light")
    if static is None or static.timing is None or plan is None:
        reasons = "" if plan is None else f" ({plan.refusal or '; '.join(dict.fromkeys(s.reason for s in plan.sites))})"
        place = "has no static rival, and does not earn its place either" if _fails(record) else "earns its place"
        return f"routing {place}: no light form keeps the budget on every row{reasons}"
    if why := _fails(record):
        return f"routing does NOT earn its place here: {why}"
    forms = (
        plan.cascade.light if plan.cascade is not None else ", ".join(dict.fromkeys(f"{s.light}" for s in plan.routed))
    )
    if _loss(static) > limit:
        return f"routing earns its place: static-light ({forms}) misses the budget on the test rows, routed keeps it"
    return _rivalry(record, static, forms)


def _fails(record: Record) -> str:
    """Why routing could not earn its place whatever its rivals do; empty where it could."""
    plan = record.prepared.plan
    if plan.budget and plan.certificate is None:
        return "its budget is not certified"
    if not _loss(record.routed) <= record.prepared.limit:
        return "it misses its budget on the test rows"
    return "" if _gain(record) > 1 + TIE else "it is not faster than the scripted baseline"


def _rivalry(record: Record, static: Row, forms: str) -> str:
    """Routing against one light form on every row, both within the budget."""
    routed = record.routed
    assert static.timing is not None
    assert routed.timing is not None
    ratio = static.timing.p50 / routed.timing.p50
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


def _against_random(record: Record) -> str:
    routed = record.routed
    random, light = record.row("random"), record.row("always-light")
    assert random is not None
    assert light is not None
    what = record.prepared.budget_name
    means = [f"{_loss(row):.2e} {row.variant.name}" for row in (routed, random, light)]
    against = f"mean {what} {', '.join(means)}"
    if _loss(routed) < _loss(random) * (1 - TIE):
        return f"the gate beats a random choice of as many rows: {against}"
    return f"the gate does NOT beat a random choice of as many rows: {against}"


def _gain(record: Record) -> float:
    """The main row's speedup over the scripted baseline."""
    return record.speedup(record.routed, "scripted") or 1.0


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
