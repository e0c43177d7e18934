"""Records as text: the table, and what must be said under it."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Mapping

from dendrofx.compare import controls
from dendrofx.compare.records import Record, Row
from dendrofx.compare.text import machine_line, number, percent, text_table
from dendrofx.compare.verdict import verdict
from dendrofx.machine.pace import HELPS
from dendrofx.plan.text import WIDTH
from dendrofx.values.skill import Skill, router_skill

SKILL_BATCH = 64
MANY_SITES = 6

HEADERS = [
    "variant", "p50 ms", "p95 ms", "x eager", "x scripted", "rows/s", "live %", "activity %", "compute %", "MACs %",
    "dev mean", "dev p99", "tail max", "agree %",
]  # fmt: skip


def table(record: Record) -> str:
    """Return one line per variant."""
    rows = [_line(record, row) for row in record.rows]
    limit = ["limit, counted", "-", "-", "-", number(record.limit, ".2f"), *["-"] * (len(HEADERS) - 5)]
    rows += [] if record.limit is None else [limit]
    budget = record.prepared.asked.budget
    headers = HEADERS if budget is None else [*HEADERS, f"{budget.name} %"]
    if any(row.quality.output for row in record.rows):  # of several outputs, the one that deviates most
        headers = [*headers, "dev mean of"]
    return text_table(rows, headers)


def _line(record: Record, row: Row) -> list[str]:
    quality, timing = row.quality, row.timing
    return [
        row.variant.name,
        number(row.ms),
        number(None if timing is None else timing.p95),
        number(record.speedup(row, "eager"), ".2f"),
        number(record.speedup(row, "scripted"), ".2f"),
        number(record.rows_per_s(row), ",.0f"),
        *(percent(s) for s in (quality.live, quality.activity, quality.effective_compute, quality.plain_macs)),
        *(number(d, ".2e") for d in (quality.mean, quality.p99, quality.max)),
        percent(quality.agreement, ".2f"),
        *([] if quality.loss is None else [percent(quality.loss, ".3g")]),
        *([quality.output] if quality.output else []),
    ]


def footer(record: Record, machine: Mapping[str, str], seed: int) -> str:
    """Return skill, verdict, costs and the machine, in words."""
    prepared = record.prepared
    lines = [*skill_lines(record, seed), *verdict(record), *_beside(record), "", costs(record)]
    lines += [
        f"transform {prepared.transform_s:.1f} s; A/A ratio {record.aa_ratio:.3f} over {record.race.rounds} rounds,"
        f" {record.race.switches_per_second:.0f} involuntary switches/s",
        *_disturbed(record),
        machine_line(record.threads, machine),
    ]
    return "\n".join(lines)


def _beside(record: Record) -> list[str]:
    """Say what is counted or published and not measured."""
    case, lines = record.prepared.case, []
    if case.limit is not None and record.limit is not None:
        reached = "" if record.reached is None else f"; {record.prepared.main} reaches {record.reached:.2f} of it"
        lines.append(f"the limit is {record.limit:.2f} x, counted in {case.limit.what} and not timed{reached}")
    if case.published is not None and record.published is not None:
        published = f"{record.published:.2f} x with {case.published.what}, {case.published.source}"
        lines.append(f"published by others and not measured here: {published}")
    return [part for line in lines for part in textwrap.wrap(line, WIDTH, subsequent_indent="  ")]


def _disturbed(record: Record) -> list[str]:
    """Say what a busy machine did to the times above."""
    busy = [f"noisy: {record.noisy}; take the ratios with care"] if record.noisy else []
    if record.unreliable:
        busy.append(f"UNRELIABLE: {record.prepared.main} is {record.unreliable}; {HELPS}")
    return [part for line in busy for part in textwrap.wrap(line, WIDTH, subsequent_indent="  ")]


def skill_lines(record: Record, seed: int) -> list[str]:
    """Return the router skill on the test rows, one line per routed site; of a cascade on the test samples."""
    if record.prepared.plan.cascade is not None:
        return list(record.skills)
    routed = record.prepared.routed
    if not routed.plan.routed:
        return []
    errors = controls.site_errors(routed, record.prepared.case.test.batches(SKILL_BATCH), seed)
    skills = {site: router_skill(score, error, seed) for site, (score, error) in errors.items()}
    if len(skills) > MANY_SITES:
        return [_skill_summary(skills)]
    gates = {s.name: s.gate for s in routed.plan.routed}
    return [
        f"router skill of {gates[site]} at {site}: {skill} on {len(errors[site][1])} test rows (0 random, 1 oracle)"
        for site, skill in skills.items()
    ]


def _skill_summary(skills: Mapping[str, Skill]) -> str:
    known = sorted(s.value for s in skills.values() if s.value is not None)
    if not known:
        return f"router skill at {len(skills)} sites: n/a"
    return (
        f"router skill at {len(known)} of {len(skills)} sites: median {statistics.median(known):.2f},"
        f" {known[0]:.2f} to {known[-1]:.2f} (0 random, 1 oracle)"
    )


def costs(record: Record) -> str:
    """Return the first call, weights, file and parallel regions of each variant as a table."""
    rows = [
        [
            row.variant.name,
            f"{row.variant.first_call_ms:.1f}",
            *(number(size and size / 1e6, ".1f") for size in (row.variant.weight_bytes, row.variant.file_bytes)),
            number(row.regions, "d"),
        ]
        for row in record.rows
    ]
    return text_table(rows, ["variant", "first call ms", "weights MB", "file MB", "parallel regions"])
