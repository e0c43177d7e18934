"""What a report says in sentences: the verdict, what the gate is worth, the certificate, and how things were measured."""

from __future__ import annotations

from dendrofx.guarantee.certificate import ASSUMPTION
from dendrofx.plan.rows import table_rows
from dendrofx.report.charts import percent
from dendrofx.report.collect import Collected
from dendrofx.report.sweep import Sweep

# Differences within the machine's own noise are ties.
TIE = 0.03


def verdict(found: Collected) -> str:
    """Say in a sentence what the module gains and costs."""
    if not found.routed:
        return _unrouted(found)
    hard, rows = found.quality.hard, found.quality.rows
    if found.replay is None:
        return f"Light on every row, {found.model} {_pace(found.sweep)} {_kept(found)}; no gate and no full branch is kept."
    what = "samples are recomputed by the original" if found.plan.cascade is not None else "rows take the full block"
    share = percent(hard / max(rows, 1))
    return f"Routed, {found.model} {_pace(found.sweep)} {_kept(found)}; {hard:,} of {rows:,} {what} ({share})."


def _pace(measured: Sweep | None) -> str:
    if measured is None:
        return "was not timed; it has"
    if measured.unreliable:
        return "has a speed that cannot be told on this disturbed machine, and"
    gain = measured.chosen.speedup
    noisy = " (noisy)" if measured.noisy else ""
    if abs(gain - 1) <= max(TIE, abs(measured.again - 1)):
        return (
            f"is as fast as the original, as far as can be told here ({gain:.2f} x{', noisy' if noisy else ''}), with"
        )
    if gain < 1:
        return f"is SLOWER than the original, {gain:.2f} times its speed{noisy}, with"
    return f"is {gain:.2f} times as fast as the original{noisy}, with"


def _kept(found: Collected) -> str:
    """Say how far the outputs are off, and whether that is within the budget."""
    quality, plan = found.quality, found.plan
    of = f" of {found.output}" if found.output else ""
    mean = f"a mean deviation{of} of {percent(quality.mean)} (99th percentile {percent(quality.p99)})"
    if plan.certificate is not None:
        shown = plan.certificate
        sure = f"{100 * (1 - shown.delta):g} % confidence"
        return f"{mean}, and {shown.metric} at most {percent(shown.alpha)} certified with {sure}"
    if plan.budget:
        return mean
    within = "within" if quality.mean <= plan.max_deviation else "ABOVE"
    return f"{mean}, {within} the budget of {percent(plan.max_deviation)}"


def _unrouted(found: Collected) -> str:
    dead = found.plan.dead_rows is not None and found.plan.dead_rows.status == "live"
    what = "Only live rows are computed, and none of these is routed" if dead else "Nothing is routed"
    exact = any(s.status == "exact" for s in found.plan.sites)
    how = ", to rounding" if dead or exact else ""
    off = "" if found.sweep is None else f" (mean deviation here {percent(found.quality.mean)})"
    pace = "" if found.sweep is None else f" It {_pace(found.sweep).removesuffix(', with').removesuffix(', and')}."
    return f"{what}: the outputs are the original's{how}{off}.{pace}"


def remarks(found: Collected) -> list[str]:
    """Say what one light form on every row would do, and whether the gate beats chance."""
    measured = found.sweep
    if measured is None:
        return []
    random = None if found.plan.budget else measured.random  # a certified budget may be about other losses
    lines = [] if random is None else [_against_random(found, random.mean)]
    light = next((p for p in measured.points if p.name == "every row light"), None)
    if light is not None:
        lines.append(_against_light(found, measured, light.speedup / measured.chosen.speedup, light.quality.mean))
    if measured.unreliable:
        lines.append(f"Unreliable times: {measured.unreliable}. Run it again on a quiet machine.")
    elif measured.noisy:
        lines.append(f"Noisy: {measured.noisy}. Take the times with care.")
    return lines


def _against_random(found: Collected, random: float) -> str:
    mine = found.quality.mean
    figures = f"mean deviation {percent(mine)} against {percent(random)}"
    if abs(mine - random) <= TIE * random:
        return f"The gate and a random choice of as many rows do equally well here: {figures}."
    beats = "beats" if mine < random else "does NOT beat"
    return f"The gate {beats} a random choice of as many rows: {figures}."


def _against_light(found: Collected, measured: Sweep, ratio: float, mean: float) -> str:
    """Say what one light form on every row would do: within the budget, what the net costs; else what it is good for."""
    off = f"With every row light the mean deviation is {percent(mean)}"
    if found.plan.budget:
        return f"{off}."
    if mean > found.plan.max_deviation:
        return f"{off}, above the budget: the gate and the full branch are what keeps it."
    if measured.unreliable or ratio <= 1 + max(TIE, abs(measured.again - 1)):
        return f"{off}, within the budget."
    return f"{off}, within the budget, and it is {ratio:.2f} times as fast again: the price of the net for other rows."


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
        if found.loss is None
        else f"On the {found.samples:,} samples of this report the mean loss is {percent(found.loss)}."
    )
    return [*lines, seen] if seen else lines


def reasons(found: Collected) -> list[str]:
    """Say why each other site is as it is, those alike in one line; and what became of dead rows and of the cascade."""
    plan = found.plan
    parts = [
        str(p) for p in (plan.dead_rows, plan.cascade) if p is not None and (p is plan.dead_rows or not found.routed)
    ]
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
            f"Times are medians of {sweep.rounds} rounds in turns, all scripted and frozen alike, against {original}"
            f" ({sweep.original_ms:.3g} ms); against itself it is {sweep.again:.3f} (A/A)."
        )
        if not found.is_model and (
            found.plan.dead_rows is not None or any(s.status == "exact" for s in found.plan.sites)
        ):
            lines.append(
                "What it keeps has exact forms and live rows in it already: pass model= to compare with the model itself."
            )
    threads = f"{found.threads} thread{'s' if found.threads > 1 else ''}"
    lines.append(
        f"{threads}; {machine['cpu']}, {machine['cores']} cores, {machine['capability']}, {machine['system']}."
    )
    lines.append(
        f"dendrofx {machine['dendrofx']}, torch {machine['torch']}, Python {machine['python']}; seed {found.seed}."
    )
    return lines
