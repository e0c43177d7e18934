"""Bars of every site: what its block takes and what takes its place, in ms, and of what the latter consists, in multiply-adds.

A plan has the time of a block and of the routed site as a whole. Its parts were not timed where they run, one after the other: they
are drawn as what they are known by, counted multiply-adds, in a plot of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dendrofx.compare.drawing import BLACK, BLUE, GREEN, GREY, ORANGE, PALE, heading, legend, name, small_print, titled
from dendrofx.compare.records import Record
from dendrofx.plan.entries import SitePlan
from dendrofx.plan.folding import called, grouped
from dendrofx.values.counts import of_sites, site_activity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 8  # sites, or kinds of them, that are drawn
_NAME = 26
PARTS = ("light", "gate", "full")
_STYLES: dict[str, dict[str, Any]] = {
    "block": {"color": PALE, "label": "block, measured"},
    "measured": {"color": BLUE, "label": "routed site as a whole, measured"},
    "predicted": {
        "fc": "white",
        "hatch": "////",
        "ec": BLUE,
        "label": "routed site, sum of parts that were timed apart",
    },
    "refused": {
        "fc": "white",
        "ls": "--",
        "ec": BLACK,
        "lw": 0.8,
        "label": "refused: its cheapest light + gate + full",
    },
    "light": {"color": GREEN, "label": "light, counted"},
    "gate": {"fc": ORANGE, "hatch": "xxxx", "ec": "white", "lw": 0, "label": "gate, counted"},
    "full": {"fc": PALE, "hatch": "....", "ec": "white", "lw": 0, "label": "full, counted"},
}
_NOTE = (
    "Left: each block alone, as it was timed while transform decided; a site that was neither timed nor routed is left out. Right:"
    " multiply-adds, weighted by bits, that the test samples took; these parts were not timed."
)


@dataclass(frozen=True)
class Bar:
    """A site, or several that are alike.

    Attributes:
        label: what it is called.
        block, after: ms; None where they were not timed.
        measured: whether `after` was timed as a whole; the sum of timed parts elsewhere.
        refused: whether the block runs as it was, and `after` is what the cheapest way to route it would have taken.
        parts: executed multiply-adds of light, gate and full branch over the block's, weighted by bits; None where not routed.
        activity: share of rows that took full.
        form: of the light branch, or of the exact one.
    """

    label: str
    block: float | None
    after: float | None
    measured: bool
    refused: bool
    parts: tuple[float, ...] | None = None
    activity: float = 0.0
    form: str = ""


def bars(record: Record) -> list[Bar]:
    """Return the bars of one batch size, in graph order; of many sites those that take longest."""
    plan = record.prepared.plan
    counts = {} if record.prepared.refused else of_sites(record.routed.quality.counts)
    sites = [s for s in plan.sites if s.name in counts or (s.block_ms is not None and _after(s) is not None)]
    folds = len(sites) > MOST
    groups = grouped(sites, lambda s: (re.sub(r"\d+", "*", s.name), s.status) if folds else s.name)
    found = [_bar(group, counts) for group in groups]
    longest = sorted(found, key=lambda b: (b.block or 0.0, sum(b.parts or ())), reverse=True)[:MOST]
    return [b for b in found if b in longest]


def plot_sites(records: Sequence[Record], machine: Mapping[str, str]) -> Figure | None:
    """Return the figure, a line of plots for each batch size; None where no site was timed and none is routed.

    Args:
        records: of one case.
        machine: see `describe_machine`.
    """
    made = [(record, bars(record)) for record in {r.batch: r for r in records}.values()]
    found = [(record, each) for record, each in made if each]
    if not found:
        return None
    lines = [len(each) for _, each in found]
    title = f"{name(records[0])}: what takes the place of each block"
    figure = titled(title, 12, 0.55 * sum(lines) + 0.9 * len(lines) + 1.0)
    grid = figure.add_gridspec(len(lines), 2, width_ratios=(1.25, 1), height_ratios=[n + 0.5 for n in lines])
    axes = [[figure.add_subplot(grid[i, k]) for k in (0, 1)] for i in range(len(lines))]
    for (left, right), (record, each) in zip(axes, found, strict=True):
        left.set_title(heading(record), fontsize=10, loc="left")
        _times(left, each)
        _parts(right, each)
    axes[-1][0].set_xlabel("ms" if any(b.block is not None for _, each in found for b in each) else "")
    axes[-1][1].set_xlabel("counted multiply-adds over the block's")
    legend(figure, [a for line in axes for a in line], 3)
    small_print(figure, [record for record, _ in found], machine, _NOTE)
    return figure


def _bar(group: Sequence[SitePlan], counts: Mapping[str, Mapping[str, int]]) -> Bar:
    """Return alike sites as one bar: times add up, shares are of all their multiply-adds together."""
    first = group[0]
    block, after = [s.block_ms for s in group], [_after(s) for s in group]
    known = None not in block and None not in after
    mine = [counts[s.name] for s in group if s.name in counts]
    parts, active = None, 0.0
    if mine:
        whole: Mapping[str, int] = {key: sum(c[key] for c in mine) for key in mine[0]}
        parts = tuple(whole[f"{part}_work"] / max(whole["original_macs"], 1) for part in PARTS)
        active = site_activity(whole)
    return Bar(
        called([s.name for s in group]),
        sum(v for v in block if v is not None) if known else None,
        sum(v for v in after if v is not None) if known else None,
        all(s.measured_ms is not None for s in group),
        first.status == "refused",
        parts,
        active,
        "" if first.status == "refused" else _form(first.light or first.full),
    )


def _form(form: object) -> str:
    """Return the name of a light form, with that of its precision."""
    names = [type(f).__name__ for f in (form, getattr(form, "precision", None)) if f is not None]
    return ", ".join(names)


def _after(site: SitePlan) -> float | None:
    return site.predicted_ms if site.measured_ms is None else site.measured_ms


def _times(axes: Axes, found: Sequence[Bar]) -> None:
    """Draw two bars a site, the block's and below it what takes its place."""
    longest = max([v for b in found for v in (b.block, b.after) if v is not None], default=0.0)
    for place, bar in enumerate(found):
        if bar.block is None or bar.after is None:
            axes.text(0, place, " not timed", va="center", fontsize=8, color=GREY)
            continue
        kind = "refused" if bar.refused else "measured" if bar.measured else "predicted"
        gain = ", refused" if bar.refused else f", {bar.block / bar.after:.2g} x"
        for y, ms, style, more in ((place - 0.19, bar.block, "block", ""), (place + 0.19, bar.after, kind, gain)):
            axes.barh(y, ms, 0.34, **_STYLES[style])
            _beside(axes, ms, y, f"{ms:.2g} ms{more}")
    axes.set_xlim(0, 1.3 * longest or 1.0)
    if not longest:
        axes.set_xticks([])
    labels = [f"{cut(b.label)}\n{b.form}" if b.form else cut(b.label) for b in found]
    axes.set_yticks(range(len(found)), labels, fontsize=8)
    _lines(axes, len(found))


def _parts(axes: Axes, found: Sequence[Bar]) -> None:
    """Draw light, gate and full of each routed site, one after the other."""
    most = 1.0
    for place, bar in enumerate(found):
        if bar.parts is None:
            axes.text(1, place, " not routed", va="center", fontsize=8, color=GREY)
            continue
        left = 0.0
        for part, share in zip(PARTS, bar.parts, strict=True):
            axes.barh(place, 100 * share, 0.5, left=100 * left, **_STYLES[part])
            left += share
        most = max(most, left)
        _beside(axes, 100 * left, place, f"{100 * left:.1f} %; {100 * bar.activity:.1f} % of rows in full")
    axes.axvline(100, color=BLACK, lw=1)
    axes.set_xlim(0, 112 * most)
    axes.xaxis.set_major_formatter(lambda v, _: f"{v:g} %")
    axes.set_yticks([])
    _lines(axes, len(found))


def _beside(axes: Axes, x: float, y: float, said: str) -> None:
    """Write a figure at the end of its bar."""
    axes.annotate(said, (x, y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8,
                  bbox={"fc": "white", "ec": "none", "pad": 0.5})  # fmt: skip


def _lines(axes: Axes, count: int) -> None:
    axes.set_ylim(count - 0.45, -0.55)
    axes.tick_params(axis="y", length=0)
    axes.grid(alpha=0.25, axis="x")
    axes.set_axisbelow(True)


def cut(label: str) -> str:
    """Return a name that fits beside its bar."""
    return label if len(label) <= _NAME else f"{label[: _NAME - 1]}~"
