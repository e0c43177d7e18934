"""The tables of a report, as HTML with headers."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from html import escape

from dendrofx.compare.points import CHOSEN, Sweep
from dendrofx.plan.rows import number
from dendrofx.report.charts import percent
from dendrofx.report.collect import Collected

MANY_SITES = 4


def table(caption: str, headers: Sequence[str], rows: Sequence[Sequence[str]], figures: Container[int]) -> str:
    """Return a table; the first cell of a row is its header, and the columns in `figures` stand right."""
    head = "".join(f'<th scope="col"{_class(i, figures)}>{html(h)}</th>' for i, h in enumerate(headers))
    body = "".join(f"<tr>{''.join(_cell(i, c, figures) for i, c in enumerate(row))}</tr>" for row in rows)
    inside = f"<caption>{html(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{html(caption)}"><table>{inside}</table></div>'


def html(content: str) -> str:
    """Escape a text, with its percent signs kept beside their figures."""
    return escape(content).replace(" %", "\N{NO-BREAK SPACE}%")


def broken(name: str) -> str:
    """Escape a name, which a narrow column may break behind its dots."""
    return re.sub(r"\.(?=[^\W\d])", ".<wbr>", html(name))


def _cell(place: int, content: str, figures: Container[int]) -> str:
    if place == 0:
        return f'<th scope="row">{broken(content)}</th>'
    return f"<td{_class(place, figures)}>{html(content)}</td>"


def _class(place: int, figures: Container[int]) -> str:
    return ' class="figure"' if place in figures else ""


def sweep(found: Collected, measured: Sweep) -> str:
    """Return the points that were run, beside the original twice."""
    rows = [
        ["original", "", "", "0", "0", number(measured.original_ms), "1.00"],
        [
            "original again (A/A)",
            "",
            "",
            "0",
            "0",
            number(measured.original_ms * measured.again),
            f"{1 / measured.again:.2f}",
        ],
    ]
    for point in measured.points:
        quality = point.quality
        routed = bool(quality.rows)
        hard = f"{quality.hard:,} of {quality.rows:,}" if routed else ""
        far = [percent(quality.mean), percent(quality.p99)]
        name = f"{point.name} (chosen)" if point.name == CHOSEN and len(measured.points) > 1 else point.name
        rows.append(
            [
                name,
                hard,
                percent(quality.activity or 0.0) if routed else "",
                *far,
                number(point.ms),
                f"{point.speedup:.2f}",
            ]
        )
    headers = ["Setting", "Rows in full", "Activity", "Mean deviation", "99th percentile", "ms", "Times as fast"]
    noisy = "; noisy" if measured.noisy or measured.unreliable else ""
    return table(f"Measured here, batch {found.batch}{noisy}", headers, rows, range(1, 7))


def worst(found: Collected) -> str:
    """Return the samples that deviate most, with their way at each site."""
    replay = found.replay
    sites = () if replay is None else replay.sites
    many = len(sites) > MANY_SITES
    headers = [
        "Sample",
        "Deviation",
        *(["Rows in full", "Sites with rows in full"] if many else [f"Way at {s}" for s in sites]),
    ]
    rows = []
    for sample in found.worst:
        ways = [_way(*w) for w in sample.ways] or ["not recorded"] * len(sites)
        if many:
            ways = _summed(sample.ways) or ways[:2]
        rows.append([str(sample.index), percent(sample.deviation), *ways])
    return table(
        f"The {len(rows)} samples that deviate most, by their place in the data, from 0",
        headers,
        rows,
        (1, 2, 3) if many else (1,),
    )


def _summed(ways: Sequence[tuple[int, int, float]]) -> list[str]:
    """Return the rows of a sample that went full, over all sites, and at how many of these."""
    hard, rows = sum(w[0] for w in ways), sum(w[1] for w in ways)
    return [f"{hard:,} of {rows:,}", f"{sum(1 for w in ways if w[0])} of {len(ways)}"] if ways else []


def _way(hard: int, rows: int, score: float) -> str:
    """Say which way a sample's rows took at a site."""
    if rows == 1:
        return f"{'full' if hard else 'light'}, score {score:.3g}"
    return f"{hard} of {rows} rows full, largest score {score:.3g}"
