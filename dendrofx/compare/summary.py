"""A run as a person reads it first: what each batch size gains and costs, whether routing earns it, and where rows are routed.

    print(summary(records, machine))

At most 100 columns and about 30 lines. All rows, figures and sentences are in `tables.py` and `verdict.py`; both take what is so
from `judgement.py`, so that they cannot say different things.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from functools import partial

from dendrofx.compare.judgement import Judgement, judge
from dendrofx.compare.prepare import STATIC
from dendrofx.compare.records import Record, Row
from dendrofx.compare.tail import tail_asked, tail_figure, tail_head
from dendrofx.compare.text import deviation, machine_line, number, short
from dendrofx.compare.variants import Saved
from dendrofx.gates import NoGate
from dendrofx.plan.entries import SitePlan
from dendrofx.plan.plan import Plan

WIDTH = 100
BAR = 19  # of the fastest row
SITES = 6  # lines about sites
BUSY_ROWS = 3  # that fit a line at two thread counts
_WHERE, _BATCH, _NAME, _BUSY = 18, 11, 13, 22
_ROOM = WIDTH - _BATCH - _NAME - 10  # for what a row says in words
_cut = partial(textwrap.shorten, placeholder=" ...")


def summary(records: Sequence[Record], machine: Mapping[str, str]) -> str:
    """Return the text of one case's tables.

    Args:
        records: one a batch size and order.
        machine: see `describe_machine`.
    """
    judged = [judge(r) for r in records]
    shown = [_block(record, found) for record, found in zip(records, judged, strict=True)]
    foot = [_STATIC_NOTE] if any(r.row(STATIC) is not None for r in records) else []
    foot += published_note(records)
    parts = [
        "\n".join([*heading(records[0]), "", *_heads(records[0]), *_scaled(shown), *foot]),
        "\n".join(line for record, found in zip(records, judged, strict=True) for line in _outcome(record, found)),
        "\n".join(beside(records)),
        "\n".join(where(records)),
        "\n".join(_machine(records, machine)),
    ]
    return "\n\n".join(p for p in parts if p)


_STATIC_NOTE = " * one approximation on every row, no gate: what you could have without routing"


def heading(record: Record) -> list[str]:
    """Return the case, its budget and what it was measured on."""
    case, prepared = record.prepared.case, record.prepared
    title = textwrap.wrap(f"{case.name}: {case.title}", WIDTH, subsequent_indent="  ")
    budget = prepared.asked.budget
    what = f"mean deviation at most {100 * prepared.limit:g} %" if budget is None else str(budget)
    what = "nothing is approximated" if case.lossless and not prepared.limit else what
    what += tail_asked(prepared)
    line = f"budget: {what}; measured on {len(case.test)} samples that nothing was fitted to"
    return [*title, *textwrap.wrap(line, WIDTH, subsequent_indent="  ")]


def _heads(record: Record) -> list[str]:
    """Return the two lines above the figures."""
    left, tail = " " * (_BATCH + _NAME), tail_head(record.prepared)
    return [
        f"{left}{'p50 ms':>7}{'speed-up':>11}{'':{BAR - 4}}{'deviation':>16}{'same':>13}{'rows in':>12}",
        f"{left}{'':7}{'over scripted':>16}{'':{BAR - 9}}{'mean':>9}{tail:>10}{'answer':>10}{'full block':>12}",
    ]


Line = tuple[str, float | None, str]  # the text up to its bar, its speed-up, and the rest


def _block(record: Record, judged: Judgement) -> list[Line]:
    """Return the lines of one batch size."""
    names = [n for n in record.prepared.modules if n != record.prepared.main] + [record.prepared.main]
    rows = [r for r in (record.row("scripted"), *map(record.row, names), record.row(STATIC)) if r is not None]
    peer = record.row(judged.peer) if judged.peer else None
    order = "" if len(record.prepared.case.orders) == 1 else f" {record.order}"
    formats = [r for r in record.rows if isinstance(r.variant.module, Saved)]
    lines = [_line(record, row) for row in [*rows, *formats, *([] if peer is None else [peer])]]
    unsaved = {name: why for name, why in record.missing.items() if name.startswith("as ")}
    lines += [(f"{name:{_NAME}}{'-':>7}   {_cut(why, _ROOM)}", None, "") for name, why in unsaved.items()]
    lines += [] if record.limit is None else [_limit(record, record.limit)]
    head = f"batch {record.batch}{order}"
    split = [head] if len(head) < _BATCH else [f"batch {record.batch}", *textwrap.wrap(order.strip(), _BATCH - 1)]
    marks = [*split, *[""] * len(lines)]
    return [(f"{mark:{_BATCH}}{text}", speed, rest) for mark, (text, speed, rest) in zip(marks, lines, strict=False)]


def _line(record: Record, row: Row) -> Line:
    """Return one row; where nothing was rewritten the main one says why."""
    name, quality = row.variant.name, row.quality
    label = "one light*" if name == STATIC else name if len(name) <= _NAME else name.removeprefix("peer:")
    if name == record.prepared.main and record.prepared.refused:
        return f"{label:{_NAME}}{'-':>7}   {reason(record.prepared.plan)}", None, ""
    timing = "-" if row.ms is None else f"{row.ms:.3g}" if row.ms < 1e3 else f"{row.ms:.0f}"
    plain = name == "scripted"
    figures = (
        ("-" if plain else deviation(quality.mean), 9),
        ("-" if plain else tail_figure(record.prepared, quality), 10),
        ("-" if quality.agreement is None else f"{100 * quality.agreement:.1f} %", 10),
        (_full(row), 12),
    )
    speed = record.speedup(row, "scripted")
    return f"{label:{_NAME}}{timing:>7}", speed, "".join(f"{text:>{width}}" for text, width in figures)


def _limit(record: Record, limit: float) -> Line:
    """Return the row of what can be gained at most: a count, so without a time or a bar."""
    counted = record.prepared.case.limit
    text = "counted" if counted is None else f"counted in {counted.what}"
    text += "" if record.reached is None else f", {record.reached:.2f} of it reached"
    text += "" if record.published is None else f"; published: {record.published:.2f} +"
    return f"{'limit':{_NAME}}{'-':>7}", None, f"{limit:>7.2f}  {text}"


def published_note(records: Sequence[Record]) -> list[str]:
    """Say whose the gains are that nobody has measured here."""
    found = next((r.prepared.case.published for r in records if r.published is not None), None)
    text = "" if found is None else f" + not measured here: {found.what}, {found.source}"
    return textwrap.wrap(text, WIDTH, initial_indent=" ", subsequent_indent="   ")


def _scaled(blocks: Sequence[Sequence[Line]]) -> list[str]:
    """Return the lines with bars of one scale, the fastest row's the longest."""
    fastest = max([s for block in blocks for _, s, _ in block if s is not None], default=1.0)
    lines = []
    for text, speed, rest in (line for block in blocks for line in block):
        bar = "" if speed is None else f"{speed:>7.2f}  {'#' * max(round(BAR * speed / max(fastest, 3.0)), 1):<{BAR}}"
        lines.append(f"{text}{bar}{rest}".rstrip())
    return lines


def _full(row: Row) -> str:
    """Return the share of rows in the full block; where rows are dead and none is routed, of those that are computed."""
    quality = row.quality
    if quality.activity is not None:
        return f"{100 * quality.activity:.1f} %"
    return "-" if quality.live is None else f"{100 * quality.live:.0f} % live"


def reason(plan: Plan) -> str:
    """Say on what is left of a line why nothing was rewritten."""
    timed = [s for s in plan.sites if s.block_ms is not None and s.predicted_ms is not None]
    if plan.refusal or not timed or plan.models:
        text = plan.refusal or plan.no_sites or (plan.sites[0].reason if plan.sites else "nothing to route")
    else:
        largest = max(timed, key=lambda s: s.block_ms or 0.0)
        text = f"block {largest.block_ms:.2g} ms, cheapest light + gate {largest.predicted_ms:.2g} ms"
    return f"refused: {_cut(text, _ROOM - 9)}"


def _outcome(record: Record, judged: Judgement) -> list[str]:
    """Say what one batch size comes to; where its row has said that nothing was rewritten, only what neighbours do to others."""
    text = " ".join(judged.neighboured if record.prepared.refused else judged.sentences())
    if judged.pace == "tie" and not judged.unreliable and record.limit == 1:
        text = " ".join([f"{judged.gain:.2f} x, where there is nothing to gain.", *judged.neighboured])
    return [] if not text else textwrap.wrap(f"{_label(record):<10} {text}", WIDTH, subsequent_indent=" " * _BATCH)


def beside(records: Sequence[Record]) -> list[str]:
    """Return how much faster than the original the rows are beside workers, by thread count; nothing where none was measured."""
    found = [r for r in records if r.busy]
    if not found:
        return []
    names = found[0].busy[0].rows[:BUSY_ROWS]
    width = (WIDTH - _BUSY) // (2 * BUSY_ROWS)
    head = [f"on {b.threads} thread{'s' if b.threads > 1 else ''}" for b in found[0].busy]
    shown = ["one light*" if name == STATIC else name for name in names] * len(head)
    lines = [
        f"{f'Beside {found[0].busy[0].workers} workers':{_BUSY}}" + "".join(f"{h:>{width * len(names)}}" for h in head),
        f"{'speed-up, mean call':{_BUSY}}" + "".join(f"{name:>{width}}" for name in shown),
    ]
    for record in found:
        gains = [number(b.speedup(name), ".2f") for b in record.busy for name in names]
        lines.append(f"{_label(record):{_BUSY}}" + "".join(f"{gain:>{width}}" for gain in gains))
    return [line.rstrip() for line in lines]


def _label(record: Record) -> str:
    """Return what tells a table from the others of its case."""
    return f"batch {record.batch}" + ("" if len(record.prepared.case.orders) == 1 else f" {record.order}")


# ------------------------------------------------------------------------------------------------------------- where


def where(records: Sequence[Record]) -> list[str]:
    """Say of the largest batch size that routes what became of every site, alike ones on one line."""
    found = [r for r in records if not r.prepared.refused] or list(records)
    record = max(found, key=lambda r: r.batch)
    plan = record.prepared.plan
    if plan.cascade is not None:
        return textwrap.wrap(str(plan.cascade), WIDTH, subsequent_indent="  ")
    lossless = record.prepared.case.lossless  # then it says nothing that a site is not approximated
    groups: dict[tuple[str, ...], list[SitePlan]] = {}
    for site in (s for s in plan.sites if not (lossless and s.status == "refused")):
        groups.setdefault((_pattern(site.name), way(site), str(site.light or site.full or "")), []).append(site)
    lines = [line for sites in groups.values() for line in _site_lines(sites)]
    more = [f"  and {len(lines) - SITES} more lines: --verbose"] if len(lines) > SITES else []
    title = f"Where (batch {record.batch})"
    spared = [str(s) for s in (plan.dead_rows, plan.repeated_rows) if s is not None]
    live = [
        line for text in spared for line in textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="    ")
    ]
    if lossless and not lines:
        return [title, *live] if live else []
    return [f"{title:<30}{'light form':<42}{'ms: block -> light + gate':>28}", *live, *lines[:SITES], *more]


def way(site: SitePlan) -> str:
    """Return a site's status in a word: without a gate every row is light."""
    return "light" if isinstance(site.gate, NoGate) else site.status


def _pattern(name: str) -> str:
    return re.sub(r"\d+", "*", name)


def _site_lines(sites: Sequence[SitePlan]) -> list[str]:
    first = sites[0]
    name = first.name if len(sites) == 1 else f"{_pattern(first.name)} ({len(sites)})"
    if len(name) > _WHERE:
        name = f"{name[: _WHERE - 1]}~"
    head = f"  {name:<{_WHERE}} {way(first):<9}"
    times = [(s.block_ms, s.measured_ms or s.predicted_ms) for s in sites]
    known = [(b, p) for b, p in times if b is not None and p is not None]
    ms = " -> ".join(_range([pair[i] for pair in known]) for i in (0, 1)) if known else ""
    if first.status != "refused":
        form = short(first.light or first.full)
        form = form if len(form) <= 46 else f"{form[:45]}~"
        return [f"{head}{form:<46}{ms:>24}"]
    unpaid = bool(known) and first.reason.startswith("no light form pays")  # what the figures beside it say
    text = "cheapest light form does not pay" if unpaid else first.reason
    return [f"{head}{_cut(text, 46 if ms else WIDTH - len(head)):<46}{ms:>24}".rstrip()]


def _range(values: Sequence[float]) -> str:
    """Return one figure, or the least and the largest."""
    low, high = (number(v, ".2g") for v in (min(values), max(values)))
    return low if low == high else f"{low}..{high}"


def _machine(records: Sequence[Record], machine: Mapping[str, str]) -> list[str]:
    """Say on what it was measured, and whether that was quiet."""
    ratios = ", ".join(f"{r.aa_ratio:.2f}" for r in records)
    noise = "NOISY, take the ratios with care" if any(r.noisy for r in records) else "quiet"
    line = f"Machine: {machine_line(records[0].threads, machine)}; {noise} (A/A {ratios})"
    crowded = f". {machine['crowded']}" if machine.get("crowded") else ""
    return textwrap.wrap(f"{line}{crowded}", WIDTH, subsequent_indent="  ")
