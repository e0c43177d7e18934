"""Records as text: the table, and what must be said under it."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from dendrofx.compare import controls
from dendrofx.compare.records import Record, Row
from dendrofx.compare.verdict import verdict
from dendrofx.machine.pace import HELPS
from dendrofx.plan.text import WIDTH
from dendrofx.runtime.scores import UNJUDGED
from dendrofx.values.skill import Skill, router_skill

SKILL_BATCH = 64
MANY_SITES = 6

HEADERS = [
    "variant", "p50 ms", "p95 ms", "x eager", "x scripted", "rows/s", "live %", "activity %", "compute %", "MACs %",
    "dev mean", "dev p99", "dev max", "agree %",
]  # fmt: skip


def table(record: Record) -> str:
    """One line per variant."""
    rows = [_line(record, row) for row in record.rows]
    budget = record.prepared.asked.budget
    headers = HEADERS if budget is None else [*HEADERS, f"{budget.name} %"]
    if any(row.quality.output for row in record.rows):  # of several outputs, the one that deviates most
        headers = [*headers, "dev mean of"]
    return tabulate(
        rows, headers=headers, tablefmt="simple", disable_numparse=True, stralign="right", colalign=("left",)
    )


def _line(record: Record, row: Row) -> list[str]:
    quality, timing = row.quality, row.timing
    return [
        row.variant.name,
        _number(None if timing is None else timing.p50),
        _number(None if timing is None else timing.p95),
        _number(record.speedup(row, "eager"), ".2f"),
        _number(record.speedup(row, "scripted"), ".2f"),
        _number(None if timing is None else record.batch / timing.p50 * 1e3, ",.0f"),
        _percent(quality.live, ".1f"),
        _percent(quality.activity, ".1f"),
        _percent(quality.effective_compute, ".1f"),
        _percent(quality.plain_macs, ".1f"),
        _number(quality.mean, ".2e"),
        _number(quality.p99, ".2e"),
        _number(quality.max, ".2e"),
        _percent(quality.agreement, ".2f"),
        *([] if quality.loss is None else [_percent(quality.loss, ".3g")]),
        *([quality.output] if quality.output else []),
    ]


def footer(record: Record, machine: Mapping[str, str], seed: int) -> str:
    """Skill, verdict, costs and the machine, in words."""
    prepared = record.prepared
    lines = [*skill_lines(record, seed), *verdict(record), "", costs(record)]
    lines += [
        f"transform {prepared.transform_s:.1f} s; A/A ratio {record.aa_ratio:.3f} over {record.race.rounds} rounds,"
        f" {record.race.switches_per_second:.0f} involuntary switches/s",
        *_disturbed(record),
        machine_line(record.threads, machine),
    ]
    return "\n".join(lines)


def _disturbed(record: Record) -> list[str]:
    """What a busy machine did to the times above."""
    busy = [f"noisy: {record.noisy}; take the ratios with care"] if record.noisy else []
    if record.unreliable:
        busy.append(f"UNRELIABLE: {record.prepared.main} is {record.unreliable}; {HELPS}")
    return [part for line in busy for part in textwrap.wrap(line, WIDTH, subsequent_indent="  ")]


def machine_line(threads: int, machine: Mapping[str, str]) -> str:
    """Threads, machine and versions."""
    return (
        f"{threads} thread{'s' if threads > 1 else ''}; {machine['cpu']}, {machine['cores']} cores,"
        f" {machine['capability']}; torch {machine['torch']}, Python {machine['python']}"
    )


def skill_lines(record: Record, seed: int) -> list[str]:
    """Router skill on the test rows, one line per routed site; of a cascade on the test samples."""
    if record.prepared.plan.cascade is not None:
        return list(record.skills)
    errors = controls.site_errors(record.prepared.routed, record.prepared.case.test.batches(SKILL_BATCH), seed)
    plans = {s.name: s for s in record.prepared.routed.plan.routed}
    lines = []
    skills = {site: router_skill(score, error, seed) for site, (score, error) in errors.items()}
    if len(skills) > MANY_SITES:
        return [_skill_summary(skills)]
    for site, (_, error) in errors.items():
        skill = skills[site]
        lines.append(
            f"router skill of {plans[site].gate} at {site}: {skill} on {len(error)} test rows (0 random, 1 oracle)"
        )
    return lines


def _skill_summary(skills: Mapping[str, Skill]) -> str:
    known = sorted(s.value for s in skills.values() if s.value is not None)
    if not known:
        return f"router skill at {len(skills)} sites: n/a"
    middle = statistics.median(known)
    return (
        f"router skill at {len(known)} of {len(skills)} sites: median {middle:.2f}, {known[0]:.2f} to {known[-1]:.2f} (0 random,"
        " 1 oracle)"
    )


def costs(record: Record) -> str:
    """First call, weights and file of each variant."""
    rows = [
        [
            v.name,
            f"{v.first_call_ms:.1f}",
            _number(v.weight_bytes and v.weight_bytes / 1e6, ".1f"),
            _number(v.file_bytes and v.file_bytes / 1e6, ".1f"),
        ]
        for v in (r.variant for r in record.rows)
    ]
    headers = ["variant", "first call ms", "weights MB", "file MB"]
    return tabulate(
        rows, headers=headers, tablefmt="simple", disable_numparse=True, stralign="right", colalign=("left",)
    )


def sweep_table(points: Sequence[Mapping[str, Any]]) -> str:
    """One line per tolerance."""
    rows = [
        [
            "all light" if p["tolerance"] > UNJUDGED else f"{p['tolerance']:.3g}",
            _percent(p["activity"], ".1f"),
            _percent(p["effective_compute"], ".1f"),
            f"{p['latency_ms']['p50']:.3g}",
            f"{p['speedup_vs_scripted']:.2f}",
            f"{p['deviation']['mean']:.2e}",
            f"{p['deviation']['p99']:.2e}",
            f"{p['random_deviation']['mean']:.2e}",
            _percent(p["agreement"], ".2f"),
        ]
        for p in points
    ]
    headers = [
        "tolerance", "activity %", "compute %", "p50 ms", "x scripted", "dev mean", "dev p99", "random dev mean", "agree %",
    ]  # fmt: skip
    return tabulate(rows, headers=headers, tablefmt="simple", disable_numparse=True, stralign="right")


def ablation_table(points: Sequence[Mapping[str, Any]]) -> str:
    """One line per rung, and the reasons of those that fit no site."""
    rows = [
        [
            p["name"],
            f"{p['latency_ms']['p50']:.3g}",
            f"{p['speedup_vs_scripted']:.2f}",
            _percent(p["effective_compute"], ".1f"),
            f"{p['deviation']['mean']:.2e}",
            f"{p['deviation']['p99']:.2e}",
            f"{p['deviation']['max']:.2e}",
            _percent(p["agreement"], ".2f"),
        ]
        for p in points
        if "reason" not in p
    ]
    headers = ["rung", "p50 ms", "x scripted", "compute %", "dev mean", "dev p99", "dev max", "agree %"]
    text = tabulate(
        rows, headers=headers, tablefmt="simple", disable_numparse=True, stralign="right", colalign=("left",)
    )
    return "\n".join([text, *[f"{p['name']}: {p['reason']}" for p in points if "reason" in p]])


def _number(value: float | None, form: str = ".3g") -> str:
    return "-" if value is None else format(value, form)


def _percent(share: float | None, form: str) -> str:
    return "-" if share is None else format(100 * share, form)
