"""The page: what was collected, as one HTML file that fetches nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from importlib import resources
from string import Template

from dendrofx.report import tables, words
from dendrofx.report.charts import replayed, trade_off
from dendrofx.report.collect import Collected
from dendrofx.report.drawing import column, longest
from dendrofx.report.replay import FLOAT32_MAX
from dendrofx.report.site_table import sites
from dendrofx.report.tables import html
from dendrofx.runtime.scores import UNJUDGED

_SLIDER = Template("""
<div class="slider"><label for="slider">Tolerance</label>
<input id="slider" type="range" min="0" max="$last" step="1" value="$start">
<div class="ends" aria-hidden="true"><span>every row full</span><span>every row light</span></div>
<p><button id="back" type="button">Back to the chosen tolerance</button></p></div>
<dl class="figures"><div><dt>Tolerance</dt><dd id="tolerance">-</dd></div><div><dt>Activity</dt><dd id="activity">-</dd></div>
<div><dt>Rows in full</dt><dd id="hard">-</dd></div><div><dt>Mean deviation</dt><dd id="mean">-</dd></div>
<div><dt>99th percentile</dt><dd id="p99">-</dd></div></dl>""")


def page(found: Collected) -> str:
    """Return the HTML of a report."""
    positions = [] if found.replay is None else found.replay.positions()
    sections = [
        _section("trade-off", "What it gains and costs", _gains(found)),
        _section("sites", "Where rows are routed", _where(found)),
        _section("slider-section", "Other tolerances", _slider(found, positions)),
        _section("graph", "The graph before and after", _graphs(found)),
        _section("worst", "Samples that deviate most", _worst(found)),
        _section("certificate", "Certificate", _paragraphs(words.certificate(found))),
        _section("how", "How this was measured", _paragraphs(words.measured_how(found))),
    ]
    return Template(_asset("page.html")).substitute(
        title=escape(f"{found.model}: what routing does"),
        style=_asset("style.css"),
        script=_asset("page.js"),
        verdict=html(words.verdict(found)),
        remarks=_paragraphs(words.remarks(found)),
        sections="\n".join(s for s in sections if s),
        footer=escape(f"Written by dendrofx {found.machine['dendrofx']}. This file fetches nothing."),
        data=_data(found, positions),
    )


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _data(found: Collected, positions: Sequence[float]) -> str:
    """Return the recorded rows as JSON that may stand in a script element."""
    replay = found.replay
    given = {
        "replay": None if replay is None else replay.packed(),
        "factors": positions,
        "chosen": None if replay is None else replay.chosen,
        "start": _start(found, positions),
        "largest": FLOAT32_MAX,
        "unjudged": UNJUDGED,
    }
    return json.dumps(given, allow_nan=False).replace("<", "\\u003c")


def _start(found: Collected, positions: Sequence[float]) -> int:
    """Return the slider's position at the chosen tolerance."""
    chosen = None if found.replay is None else found.replay.chosen
    return positions.index(chosen) if chosen in positions else 0


def _section(name: str, heading: str, content: str) -> str:
    if not content:
        return ""
    return f'<section aria-labelledby="h-{name}"><h2 id="h-{name}">{escape(heading)}</h2>\n{content}\n</section>'


def _paragraphs(lines: Sequence[str]) -> str:
    return "".join(f"<p>{html(line)}</p>" for line in lines)


def _gains(found: Collected) -> str:
    if found.sweep is None:
        return _paragraphs(["There is no original beside the module to time and compare it with: pass model=."])
    chart = _chart("Trade-off", trade_off(found, found.sweep)) if found.routed else ""
    return chart + tables.sweep(found, found.sweep)


def _where(found: Collected) -> str:
    lines = words.reasons(found)
    said = f"<ul>{''.join(f'<li>{html(line)}</li>' for line in lines)}</ul>" if lines else ""
    if not found.routed:
        return _paragraphs(["No rows are routed:"]) + said
    return sites(found) + (_paragraphs(["Elsewhere:"]) + said if said else "")


def _slider(found: Collected, positions: Sequence[float]) -> str:
    replay = found.replay
    if replay is None:
        return ""
    if replay.exact:
        how = "Exact: every sample passes one gate with one score, which was recorded and is replayed here."
    else:
        how = (
            "A prediction: the recorded scores are replayed, and errors of several rows or sites are taken to add up as squares"
            " do. The dots were run again."
        )
    few = f" On the first {len(replay.full):,} samples." if len(replay.full) < found.samples else ""
    slider = _SLIDER.substitute(last=len(positions) - 1, start=_start(found, positions))
    chart = replayed(replay, found.sweep, positions)
    return _paragraphs([how + few]) + slider + _chart("Other tolerances", chart)


def _chart(name: str, drawn: str) -> str:
    """Return a picture that a narrow window scrolls, by keyboard too."""
    return f'<div class="chart" tabindex="0" role="region" aria-label="{name}">{drawn}</div>'


def _graphs(found: Collected) -> str:
    slowest = longest(found.after, found.before or [])
    drawn = [] if found.before is None else [column(found.before, "Before", slowest)]
    drawn.append(column(found.after, "After" if found.before is not None else "Graph", slowest))
    depth = "The deeper a branch is coloured, the more of the rows take it." if found.routed else ""
    note = f"Blocks that follow one another again and again are drawn once; bars are times, a full one the slowest block's. {depth}"
    return f'{_paragraphs([note.strip()])}<div class="graphs">{"".join(drawn)}</div>'


def _worst(found: Collected) -> str:
    return tables.worst(found) if found.quality.max > 0 else ""
