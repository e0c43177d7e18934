"""Whether routing earns its place, in plain sentences: all of them, for `--verbose`; see `judgement.py` for what is so."""

from __future__ import annotations

from dendrofx.compare import controls
from dendrofx.compare.judgement import ROUNDING, Judgement, fastest_peer, judge, peer_limit
from dendrofx.compare.prepare import STATIC
from dendrofx.compare.records import Record, Row
from dendrofx.compare.tail import tail_reached
from dendrofx.compare.variants import Peer
from dendrofx.plan.plan import Plan

_ORIGINAL = "refused every site and returned the original"


def verdict(record: Record) -> list[str]:
    """Return the sentences under a table: none says what another one denies, and none is said twice."""
    found = judge(record)
    lines = [
        *_refused(record),
        _pace(record, found),
        *([] if record.unreliable else _against_peers(record)),
        *_missing(record),
        *found.neighboured,
    ]
    if not record.prepared.routed.plan.rewrites:
        lines.append(_without_controls(record))
    else:
        judged = not (record.prepared.refused or record.unreliable)
        lines += [_against_static(record, found)] if judged else []
        lines += [_against_random(record, found), *([] if record.unreliable else _overhead(record))]
    return list(dict.fromkeys(lines))


def _refused(record: Record) -> list[str]:
    """Say that `transform` routed nothing, and why, where the rows show what it would have been."""
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
    """Say what runs where no gate does, and which rows that leaves out."""
    prepared, plan = record.prepared, record.prepared.plan
    exact = any(s.status == "exact" for s in plan.sites) or plan.rows_left_out
    why = f"transform {_ORIGINAL} ({_reasons(plan)}): " if prepared.refused and not exact and not plan.budget else ""
    return (
        f"{why}no gate and no light branch runs in {prepared.main}: the rows always-*, random and oracle are left out"
    )


def _reasons(plan: Plan) -> str:
    """Return each reason once, behind the sites that it is about."""
    sites: dict[str, list[str]] = {}
    for site in plan.sites:
        sites.setdefault(site.reason, []).append(site.name)
    return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in sites.items()) or plan.no_sites


def _pace(record: Record, found: Judgement) -> str:
    """Say how fast the main row is, and whether it keeps its budget."""
    prepared, routed = record.prepared, record.routed
    shown = f"{prepared.main} (decide=False)" if prepared.refused and prepared.routed.plan.rewrites else prepared.main
    if record.unreliable:
        return f"no speedup is claimed for {shown}, for its times are UNRELIABLE: it {_kept(record, routed)}"
    times = found.gain
    pace = (
        f"{times:.2f} x the scripted baseline" if times >= 1 else f"SLOWER than the scripted baseline ({times:.2f} x)"
    )
    return f"{shown} is {pace} and {_kept(record, routed)}"


def _overhead(record: Record) -> list[str]:
    """Say what routing costs where every row is hard."""
    if (full := record.ratio("always-full")) is None:
        return []
    over = 100 * (full - 1)
    return [f"overhead where routing saves nothing (always-full over scripted): {over:+.1f} %{_light_share(record)}"]


def _kept(record: Record, routed: Row) -> str:
    """Say whether the budget is kept on the test samples, and whether that was shown beforehand."""
    plan, tail = record.prepared.plan, tail_reached(record.prepared, routed.quality)
    if plan.budget:
        loss = f"; on the test samples, which served nothing else, it is {_percent(routed.quality.loss)}"
        shown = plan.certificate.sentence if plan.certificate else f"not certified ({plan.refusal})"
        return f"its budget is {shown}{loss}{tail}"
    kept = "keeps" if routed.quality.mean <= max(plan.max_deviation, ROUNDING) else "MISSES"
    of = f" of {routed.quality.output}" if routed.quality.output else ""
    return f"{kept} the budget: mean deviation{of} {routed.quality.mean:.2e}, budget {plan.max_deviation:g}{tail}"


def _against_peers(record: Record) -> list[str]:
    """Set each of our rows against the fastest peer that deviates no more than the row's limit, on its worst sample."""
    peers = [r for r in record.rows if isinstance(r.variant.module, Peer) and r.ms is not None]
    return [_against_fastest(record, name) for name in record.prepared.modules] if peers else []


def _against_fastest(record: Record, name: str) -> str:
    mine = record.row(name)
    assert mine is not None
    limit = peer_limit(name, mine)
    if (best := fastest_peer(record, name)) is None:
        return f"{name}: no peer keeps a deviation of {limit:.2g} on every test sample"
    return (
        f"{name} is {record.ratio(best.variant.name, name):.2f} x as fast as {best.variant.name}, the fastest peer that"
        f" deviates at most {limit:.2g} on every test sample"
    )


def _missing(record: Record) -> list[str]:
    return [f"{name} did not run: {reason}" for name, reason in record.missing.items()]


def _against_static(record: Record, found: Judgement) -> str:
    """Say whether routing earns its place: within its budget, faster than the original, and than one light form on every row."""
    static = record.row(STATIC)
    plan = record.prepared.static_plans.get(STATIC)
    if static is None or static.ms is None or plan is None:
        reasons = "" if plan is None else f" ({plan.refusal or '; '.join(dict.fromkeys(s.reason for s in plan.sites))})"
        place = "has no static rival, and does not earn its place either" if found.fails else "earns its place"
        return f"routing {place}: no light form keeps the budget on every row{reasons}"
    if found.fails:
        return f"routing does NOT earn its place here: {found.fails}"
    forms = (
        plan.cascade.light if plan.cascade is not None else ", ".join(dict.fromkeys(f"{s.light}" for s in plan.routed))
    )
    if found.rival == "misses":
        return f"routing earns its place: static-light ({forms}) misses the budget on the test rows, routed keeps it"
    return _rivalry(record, static, forms, found)


def _rivalry(record: Record, static: Row, forms: str, found: Judgement) -> str:
    """Compare routing with one light form on every row, both within the budget."""
    routed = record.routed
    ratio = 1 / found.rival_ratio
    tails = f"p99 deviation {routed.quality.p99:.1e} routed, {static.quality.p99:.1e} static-light"
    if routed.quality.loss is not None:
        losses = f"{_percent(routed.quality.loss)} routed, {_percent(static.quality.loss)} static-light"
        tails = f"{record.prepared.budget_name} {losses}"
    if found.rival == "slower":
        return f"routing earns its place: {ratio:.2f} x as fast as static-light ({forms}) in the same budget; {tails}"
    if found.rival == "tie":
        return f"routing ties with static-light ({forms}) in the same budget, {ratio:.2f} x; {tails}"
    return (
        f"routing does NOT earn its place here: static-light ({forms}), one light form on every row in the same budget, is"
        f" {found.rival_ratio:.2f} x as fast; {tails}"
    )


def _against_random(record: Record, found: Judgement) -> str:
    routed = record.routed
    random, light = record.row("random"), record.row("always-light")
    assert random is not None
    assert light is not None
    what = record.prepared.budget_name
    means = [f"{row.loss:.2e} {row.variant.name}" for row in (routed, random, light)]
    against = f"mean {what} {', '.join(means)}"
    if found.gate == "wins":
        return f"the gate beats a random choice of as many rows: {against}"
    return f"the gate does NOT beat a random choice of as many rows: {against}"


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.3g} %"


def _light_share(record: Record) -> str:
    """Say what the light branch takes of always-full's time, where a gate reads it, so that always-full runs it too."""
    cascade = record.prepared.plan.cascade is not None
    branches = [] if cascade else controls.recipe(record.prepared.routed).branches.values()
    light = record.ratio("always-light")
    if light is None or not (cascade or any(b.gate_form.reads != "input" for b in branches)):
        return ""
    return f", of which the light branch, which the gate reads, up to {100 * light:.1f} %"
