"""A plan as text: its sites as a table, what was measured and shown in a few sentences; and as an HTML table, for notebooks.

    site               light form, gate        full rows           ms    gain
    fc1..fc2  routed   Int8(), ResidualGate()      3.1 %  3.14 -> 1.3  2.42 x
    stem      refused  no light form pays

No line is wider than a terminal of 100 columns.
"""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterable, Mapping, Sequence

from dendrofx.plan.entries import SitePlan
from dendrofx.plan.rows import HEADERS, SHARE, TableRow, notes, number, percent, predicted, table_rows, timed
from dendrofx.plan.times import ModelTimes

__all__ = ["WIDTH", "html_table", "number", "outputs", "percent", "race", "skills", "table", "wrapped"]

WIDTH = 98  # of a line, two less than the 100 of a terminal: plans inside a cascade's are indented
LONGEST_NAME = 24  # of a site in the column; a longer name has a line of its own


def table(sites: Sequence[SitePlan]) -> list[str]:
    """Return the table of the sites, and the sentences that it needs."""
    rows = table_rows(sites)
    if not rows:
        return []
    shown = [0, 1, 2, *([3] if any(r.full for r in rows) else []), *([4] if timed(sites) else [])]
    shown += [5] if any(r.gain for r in rows) else []
    head = [*HEADERS[:5], HEADERS[5] if timed(sites) else SHARE]
    reasons = all(r.status == "refused" for r in rows)
    head[2] = "reason" if reasons else head[2]
    cells = [head, *(list(r.cells) for r in rows)]
    names = max(len(c[0]) for c in cells if len(c[0]) <= LONGEST_NAME)
    last = [max(len(c[i]) for c in cells) for i in shown[3:]]
    longest = max(len(c[2]) for r, c in zip([None, *rows], cells, strict=True) if r is None or r.status != "refused")
    form = min(WIDTH - names - 11 - sum(w + 2 for w in last), longest)
    lines = _laid(head[0], head[1], [head[2]], [head[i] for i in shown[3:]], names, form, last)
    for row, c in zip(rows, cells[1:], strict=True):
        width = WIDTH - names - 11 if row.status == "refused" else form
        parts = textwrap.wrap(c[2], width, break_on_hyphens=False) or [""]
        lines += _laid(c[0], c[1], parts, [c[i] for i in shown[3:]], names, form, last)
    return [*lines, *_below(sites)]


def _laid(
    name: str, status: str, parts: Sequence[str], figures: Sequence[str], names: int, form: int, widths: Sequence[int]
) -> list[str]:
    """Return one row's lines: the figures stand in the first, a form or a reason may take several."""
    own = [] if len(name) <= names else wrapped(name)
    name = "" if own else name
    right = "".join(f"  {f:>{w}s}" for f, w in zip(figures, widths, strict=True))
    first = f"{name:{names}s}  {status:7s}  {parts[0]:{form}s}{right}"
    return [line.rstrip() for line in (*own, first, *(" " * (names + 11) + part for part in parts[1:]))]


def _below(sites: Sequence[SitePlan]) -> list[str]:
    lines = []
    if timed(sites):
        folded = any(" x " in r.sites or "," in r.sites for r in table_rows(sites) if r.status != "refused")
        said = "ms: the site alone at the largest batch size, before -> after"
        said += ", alike ones together" if folded else ""
        lines.append(said + ("; ~ predicted" if predicted(sites) else ""))
    elif any(s.compute is not None for s in sites):
        lines.append(
            "compute: multiply-adds of gate, light and full, of the block's, weighted by bits; nothing was timed"
        )
    return [*lines, *(line for note in notes(sites) for line in wrapped(note))]


def html_table(sites: Sequence[SitePlan], sentences: Iterable[str]) -> str:
    """Return the same as an HTML table and a list of sentences, with everything escaped."""
    head = [*HEADERS[:5], HEADERS[5] if timed(sites) else SHARE]
    rows = [f"<tr>{''.join(f'<th>{html.escape(h)}</th>' for h in head)}</tr>"]
    rows += [f"<tr>{_html_cells(row)}</tr>" for row in table_rows(sites)]
    said = "".join(f"<li>{html.escape(s)}</li>" for s in sentences)
    return f"<table>{''.join(rows)}</table><ul>{said}</ul>"


def _html_cells(row: TableRow) -> str:
    if row.status == "refused":
        sites, status, reason = (html.escape(c) for c in row.cells[:3])
        return f'<td>{sites}</td><td>{status}</td><td colspan="4">{reason}</td>'
    return "".join(f"<td>{html.escape(cell)}</td>" for cell in row.cells)


def race(t: ModelTimes) -> str:
    """Return a race in words."""
    ms = f"{t.scripted_ms:.3g} ms scripted, {t.routed_ms:.3g} ms rewritten"
    where, itself = f"whole model at batch {t.batch}", f"A/A: {100 * t.noise:.1f} % off"
    if not t.pace.reliable:
        return f"{where}: {ms}, UNRELIABLE: {t.pace} ({t.doubt})"
    if t.doubt:
        medians = "noisy" if t.pace.medians_hold else "medians UNRELIABLE"
        return f"{where}: {t.speedup:.2f} x ({itself}); {medians}, {ms}: {t.pace} ({t.doubt})"
    return f"{where}: {ms}, {t.speedup:.2f} x ({itself}){f'; noisy: {t.noisy}' if t.noisy else ''}"


def skills(skill: float | None, on_margin: float | None) -> str:
    """Return the router skill of a cascade's gate in words."""
    said = "router skill n/a" if skill is None else f"router skill {skill:.2f}"
    return said if on_margin is None else f"{said}, {on_margin:.2f} on the margin lost"


def wrapped(text: str) -> list[str]:
    """Return the lines of a text."""
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def outputs(covered: Mapping[str, float | None], others: Sequence[str]) -> list[str]:
    """Return, where there are several outputs, those that the budget is about, the worst first, and the others."""
    if len(covered) + len(others) < 2:
        return []
    reached = sorted(covered.items(), key=lambda item: -(item[1] or 0.0))
    figures = [name if limit is None else f"{name} at most {limit:.3g}" for name, limit in reached]
    head = "covered: " if None in covered.values() else "deviation of each output: "
    lines = [(head, figures), ("not covered: ", others)]
    return [part for head, items in lines if items for part in wrapped(_fitting(head, items))]


def _fitting(head: str, items: Sequence[str]) -> str:
    """Return as many items as fit a line, and how many more there are."""
    for count in range(len(items), 0, -1):
        rest = f" and {len(items) - count} more" if count < len(items) else ""
        if len(line := head + ", ".join(items[:count]) + rest) <= WIDTH:
            break
    return line
