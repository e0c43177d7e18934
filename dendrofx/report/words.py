"""What a report says in sentences: the verdict, what the gate is worth, the certificate, and how things were measured."""

from __future__ import annotations

import math

from dendrofx.compare.judgement import Judgement, judged, kept
from dendrofx.compare.points import Sweep
from dendrofx.guarantee.certificate import ASSUMPTION
from dendrofx.plan.rows import table_rows
from dendrofx.report.charts import percent
from dendrofx.report.collect import Collected
from dendrofx.report.sweep import ALL_LIGHT


def judge(found: Collected, measured: Sweep) -> Judgement:
    """Return the findings about the module as it is, beside the original and the same light forms on every row."""
    plan, chosen, own = found.plan, measured.chosen, _limit(found) == math.inf
    return judged(
        chosen,
        measured.original_ms,
        _limit(found),
        certified=plan.certificate is not None if plan.budget else None,
        again=measured.again,
        unreliable=measured.unreliable,
        rival=None if own else next((p for p in measured.points if p.name == ALL_LIGHT), None),
        random=None if own else chosen.random,
    )


def _limit(found: Collected) -> float:
    """Return what the risk may be; infinity where it is in a metric of the caller's, which is not there to be measured."""
    shown = found.plan.certificate
    return found.plan.max_deviation if shown is None else math.inf if shown.budget is None else shown.alpha


def verdict(found: Collected) -> str:
    """Say in a sentence what the module gains and costs."""
    judgement = None if found.sweep is None else judge(found, found.sweep)
    if not found.routed:
        return _unrouted(found, judgement)
    start = f"{found.model} {_pace(found, judgement)} {_kept(found)}"
    if found.replay is None:
        return f"Light on every row, {start}; no gate and no full branch is kept."
    hard, rows = found.quality.hard, found.quality.rows
    what = "samples are recomputed by the original" if found.plan.cascade is not None else "rows take the full block"
    return f"Routed, {start}; {hard:,} of {rows:,} {what} ({percent(hard / max(rows, 1))})."


def _pace(found: Collected, judgement: Judgement | None) -> str:
    if judgement is None or found.sweep is None:
        return "was not timed; it has"
    if judgement.unreliable:
        return "has a speed that cannot be told on this disturbed machine, and"
    gain, noisy = judgement.gain, bool(found.sweep.noisy)
    if judgement.pace == "tie":
        return (
            f"is as fast as the original, as far as can be told here ({gain:.2f} x{', noisy' if noisy else ''}), with"
        )
    if judgement.pace == "slower":
        return f"is SLOWER than the original, {gain:.2f} times its speed{' (noisy)' if noisy else ''}, with"
    return f"is {gain:.2f} times as fast as the original{' (noisy)' if noisy else ''}, with"


def _kept(found: Collected) -> str:
    """Say how far the outputs are off, and whether that is within the budget."""
    quality, plan = found.quality, found.plan
    of = f" of {found.output}" if found.output else ""
    mean = f"a mean deviation{of} of {percent(quality.mean)} (99th percentile {percent(quality.p99)})"
    if plan.certificate is not None:
        shown = plan.certificate
        sure = f"{100 * (1 - shown.delta):g} % confidence"
        misses = kept(quality, _limit(found)) == "misses"
        above = f" (ABOVE it on these samples: {percent(quality.risk)})" if misses else ""
        return f"{mean}, and {shown.metric} at most {percent(shown.alpha)} certified with {sure}{above}"
    if plan.budget:
        return mean
    within = "within" if kept(quality, _limit(found)) == "kept" else "ABOVE"
    return f"{mean}, {within} the budget of {percent(plan.max_deviation)}"


def _unrouted(found: Collected, judgement: Judgement | None) -> str:
    plan = found.plan
    live = ["live"] if plan.dead_rows is not None and plan.dead_rows.status == "live" else []
    left = live + (["distinct"] if plan.repeated_rows is not None and plan.repeated_rows.status == "distinct" else [])
    what = f"Only {' and '.join(left)} rows are computed, and none of these is routed" if left else "Nothing is routed"
    exact = any(s.status == "exact" for s in plan.sites)
    how = ", to rounding" if left or exact else ""
    if judgement is None:
        return f"{what}: the outputs are the original's{how}."
    pace = _pace(found, judgement).removesuffix(", with").removesuffix(", and")
    return (
        f"{what}: the outputs are the original's{how} (mean deviation here {percent(found.quality.mean)}). It {pace}."
    )


def remarks(found: Collected) -> list[str]:
    """Say what one light form on every row would do, and whether the gate beats chance."""
    measured = found.sweep
    if measured is None:
        return []
    judgement = judge(found, measured)
    lines = [*_against_random(found, measured, judgement), *_against_light(found, measured, judgement)]
    if measured.unreliable:
        lines.append(f"Unreliable times: {measured.unreliable}. Run it again on a quiet machine.")
    elif measured.noisy:
        lines.append(f"Noisy: {measured.noisy}. Take the times with care.")
    return lines


def _against_random(found: Collected, measured: Sweep, judgement: Judgement) -> list[str]:
    random = measured.chosen.random
    if random is None or judgement.gate is None:
        return []
    figures = f"{_risk(found)} {percent(found.quality.risk)} against {percent(random.risk)}"
    if judgement.gate == "tie":
        return [f"The gate and a random choice of as many rows do equally well here: {figures}."]
    beats = "beats" if judgement.gate == "wins" else "does NOT beat"
    return [f"The gate {beats} a random choice of as many rows: {figures}."]


def _risk(found: Collected) -> str:
    """Return what the budget is about."""
    shown = found.plan.certificate
    return "mean deviation" if shown is None or shown.budget is None else f"mean {shown.metric}"


def _against_light(found: Collected, measured: Sweep, judgement: Judgement) -> list[str]:
    """Say what one light form on every row would do: within the budget, what the net costs; else what it is good for."""
    light = next((p for p in measured.points if p.name == ALL_LIGHT), None)
    if light is None or judgement.rival == "none":
        return []
    off = f"With every row light the {_risk(found)} is {percent(light.quality.risk)}"
    if judgement.rival == "misses":
        return [f"{off}, above the budget: the gate and the full branch are what keeps it."]
    if judgement.unreliable or judgement.rival != "faster":
        return [f"{off}, within the budget."]
    ratio = judgement.rival_ratio
    return [
        f"{off}, within the budget, and it is {ratio:.2f} times as fast again: the price of the net for other rows."
    ]


def certificate(found: Collected) -> list[str]:
    """Say what was shown about the module, or why nothing was."""
    plan, shown = found.plan, found.plan.certificate
    if shown is None and plan.budget:
        return [f"Asked for: {plan.budget}. It is not certified, so the outputs are the original's: {plan.refusal}"]
    if shown is None:
        calm = (
            ""
            if plan.deviation is None or plan.samples is None
            else (f" On {plan.samples[3]} calibration samples its 95 % upper limit was {percent(plan.deviation)}.")
        )
        ask = 'budget="deviation:0.01:0.95" asks transform for one.'
        return [
            f"None: a mean deviation of {percent(plan.max_deviation)} was asked for, without a certificate.{calm} {ask}"
        ]
    sure = f"{100 * (1 - shown.delta):g} %"
    outputs = "" if not shown.by_output else f" in each of {len(shown.by_output)} outputs"
    lines = [
        f"With {sure} confidence the mean loss ({shown.metric}) of later samples is at most {percent(shown.alpha)}{outputs}.",
        f"It was shown on {shown.n:,} samples that served nothing else: {shown.losses:g} lost in all, {shown.test} test, p ="
        f" {shown.p_value:.3g}; setting {shown.step} of {shown.steps} that were tested, from the safest on.",
        f"It holds as long as {ASSUMPTION}.",
        "It is bound to these weights and tolerances: a tolerance that you pick with the slider is not certified.",
    ]
    seen = (
        ""
        if found.quality.loss is None
        else f"On the {found.samples:,} samples of this report the mean loss is {percent(found.quality.loss)}."
    )
    return [*lines, seen] if seen else lines


def reasons(found: Collected) -> list[str]:
    """Say why each other site is as it is, those alike in one line; and what became of rows left out and of the cascade."""
    plan = found.plan
    parts = [str(p) for p in (plan.dead_rows, plan.repeated_rows) if p is not None]
    parts += [str(plan.cascade)] if plan.cascade is not None and not found.routed else []
    rest = [s for s in plan.sites if s.status != "routed"]
    return [
        *parts,
        *([plan.no_sites] if plan.no_sites else []),
        *(f"{row.sites} {row.status}: {row.form}" for row in table_rows(rest)),
        *([f"timing: {plan.timing}"] if plan.timing else []),
    ]


def measured_how(found: Collected) -> list[str]:
    """Say how the figures came about, and on what machine."""
    machine, sweep = found.machine, found.sweep
    left = f" ({found.left_out:,} more were left out)" if found.left_out else ""
    lines = [
        f"{found.samples:,} samples{left}, {found.batch} a call. Deviation is the relative L2 distance of a sample's output."
    ]
    if sweep is not None:
        original = "the model that was given" if found.is_model else "the original as the module keeps it"
        lines.append(
            f"Times are medians of {sweep.race.rounds} rounds in turns, all scripted and frozen alike, against {original}"
            f" ({sweep.original_ms:.3g} ms); against itself it is {sweep.again:.3f} (A/A)."
        )
        if not found.is_model and (found.plan.rows_left_out or any(s.status == "exact" for s in found.plan.sites)):
            lines.append(
                "What it keeps has exact forms and rows left out in it already: pass model= to compare with the model itself."
            )
    threads = f"{found.threads} thread{'s' if found.threads > 1 else ''}"
    lines.append(
        f"{threads}; {machine['cpu']}, {machine['cores']} cores, {machine['capability']}, {machine['system']}."
    )
    lines += [f"{machine['crowded']}."] if machine.get("crowded") else []
    lines.append(
        f"dendrofx {machine['dendrofx']}, torch {machine['torch']}, Python {machine['python']}; seed {found.seed}."
    )
    return lines
