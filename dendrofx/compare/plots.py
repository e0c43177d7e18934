"""Pictures of the sweeps, a panel a batch size: what activity does to deviation and latency, and compute to the speed-up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dendrofx.compare.drawing import (
    BENT,
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    budget_line,
    deviation_axis,
    heading,
    legend,
    limit_of,
    name,
    panels,
    share_axis,
    small_print,
    speed_axis,
)
from dendrofx.compare.prepare import STATIC
from dendrofx.compare.records import Record
from dendrofx.compare.variants import UNTIMED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_activity(records: Sequence[Record], machine: Mapping[str, str]) -> Figure:
    """Return deviation and latency against activity.

    Args:
        records: with a sweep each, of one case.
        machine: see `describe_machine`.
    """
    title = f"{name(records[0])}: deviation and latency by activity"
    figure, grid = panels(len(records), (1, 1), 6.2, title)
    bent = False
    for (upper, lower), record in zip(grid, records, strict=True):
        bent |= _deviation(upper, record)
        _latency(lower, record)
        upper.set_title(heading(record), fontsize=10)
        lower.set_xlabel("activity: rows that take the full branch")
        lower.xaxis.set_major_formatter(lambda v, _: f"{v:g} %")
        for axes in (upper, lower):
            axes.grid(alpha=0.25)
    grid[0][0].set_ylabel("deviation from the original")
    grid[0][1].set_ylabel("latency over scripted")
    legend(figure, [axes for cell in grid for axes in cell], min(len(records), 3) + 1)
    small_print(figure, records, machine, BENT if bent else "")
    return figure


def _deviation(axes: Axes, record: Record) -> bool:
    """Draw deviation by activity; return whether its axis is logarithmic above."""
    points = _by(record, "activity")
    active = [100 * a for a in _column(points, "activity")]
    mean, p99, random = (
        [100 * v for v in _column(points, *keys)]
        for keys in (("deviation", "mean"), ("deviation", "p99"), ("random_deviation", "mean"))
    )
    axes.plot(active, random, "s--", color=ORANGE, ms=4, mfc="none", label="random gate, mean")
    axes.plot(active, p99, "^:", color=BLUE, ms=4, label="routed, 99th percentile")
    axes.plot(active, mean, "o-", color=BLUE, ms=5, label="routed, mean")
    used = record.routed.quality
    if used.activity is not None:
        axes.plot([100 * used.activity], [100 * used.mean], "*", color=BLACK, mec="white", ms=14, ls="", zorder=3,
                  label="in use")  # fmt: skip
    limit = limit_of(record)
    inner = [m for m, a in zip(mean, active, strict=True) if a > 0]
    near = [*inner, limit] if limit <= 4 * max([*inner, 0.0]) else inner
    end = deviation_axis(axes.yaxis, near, [*mean, *p99, *random, limit])
    if math.isfinite(end):
        axes.axhline(end, color=GREY, lw=0.8, ls=":")
    budget_line(axes, limit, upright=False)
    return math.isfinite(end)


def _latency(axes: Axes, record: Record) -> None:
    """Draw latency by activity, in shares of the original's: that of the same race, since a machine's pace changes between two."""
    points = _by(record, "activity")
    active, speed = [100 * a for a in _column(points, "activity")], _column(points, "speedup_vs_scripted")
    p50, p95 = _column(points, "latency_ms", "p50"), _column(points, "latency_ms", "p95")
    shares = [100 / s for s in speed]
    up = [max(slow / middle - 1, 0.0) * share for slow, middle, share in zip(p95, p50, shares, strict=True)]
    axes.errorbar(active, shares, yerr=[[0.0] * len(up), up], fmt="o-", color=BLUE, ms=5, capsize=2,
                  label="routed, p50 to p95")  # fmt: skip
    scripted, used, static = record.row("scripted"), record.routed, record.row(STATIC)
    assert scripted is not None
    axes.axhline(100, color=BLACK, lw=1.3, label="scripted")
    axes.annotate(f"100 % is {scripted.ms:.3g} ms", (1, 0), xycoords="axes fraction", xytext=(-5, 5), fontsize=8,
                  textcoords="offset points", ha="right", va="bottom")  # fmt: skip
    top = max([*shares, 100.0])
    if static is not None and (ratio := record.speedup(static, "scripted")) is not None:
        axes.axhline(100 / ratio, color=ORANGE, lw=1.3, ls="--", label="one light form on every row")
        top = max(top, 100 / ratio)
    if used.quality.activity is not None and (ratio := record.speedup(used, "scripted")) is not None:
        axes.plot([100 * used.quality.activity], [100 / ratio], "*", color=BLACK, mec="white", ms=14, ls="", zorder=3)
        top = max(top, 100 / ratio)
    highest = max(share + more for share, more in zip(shares, up, strict=True))
    axes.set_ylim(0, 1.12 * max(top, min(highest, 1.5 * top)))  # one disturbed call's p95 would take the whole axis
    axes.yaxis.set_major_formatter(lambda v, _: f"{v:g} %")


def plot_compute(records: Sequence[Record], machine: Mapping[str, str]) -> Figure:
    """Return the speed-up against effective compute.

    Args:
        records: with a sweep each, of one case.
        machine: see `describe_machine`.
    """
    title = f"{name(records[0])}: what saved multiply-adds come to"
    figure, grid = panels(len(records), (1,), 4.2, title)
    for (axes,), record in zip(grid, records, strict=True):
        _compute(axes, record)
        axes.set_title(heading(record), fontsize=10)
        axes.set_xlabel("effective compute")
    grid[0][0].set_ylabel("speed-up over scripted")
    legend(figure, [axes for cell in grid for axes in cell], min(len(records), 3) + 1)
    note = (
        "Effective compute: executed multiply-adds over the original's, weighted by bits, with gate, light and padding."
    )
    small_print(figure, records, machine, note)
    return figure


def _compute(axes: Axes, record: Record) -> None:
    points = _by(record, "effective_compute")
    compute, speed = _column(points, "effective_compute"), _column(points, "speedup_vs_scripted")
    marks = {
        record.prepared.main: ("*", BLACK, 14, "in use"),
        STATIC: ("D", ORANGE, 7, "one light form on every row"),
        "dead-units": ("P", GREY, 7, "dead-units"),
        "always-full": ("v", GREY, 7, "always-full"),
    }
    shown = []
    for row in record.rows:
        share, ratio = row.quality.effective_compute, record.speedup(row, "scripted")
        if row.variant.name in marks and row.variant.name not in UNTIMED and share is not None and ratio is not None:
            shown.append((share, ratio, marks[row.variant.name]))
    shares = [*compute, 1.0, *(share for share, _, _ in shown)]
    span = [min(shares), max(shares)]
    axes.plot(
        [100 * s for s in span], [1 / s for s in span], "--", color=BLUE, lw=1, label="ideal: 1 / effective compute"
    )
    axes.plot([100 * c for c in compute], speed, "o-", color=BLUE, ms=5, label="routed, by tolerance")
    for share, ratio, (marker, colour, size, label) in shown:
        axes.plot([100 * share], [ratio], marker, color=colour, ms=size, mec="white", ls="", zorder=3, label=label)
    axes.axhline(1, color=BLACK, lw=1)
    share_axis(axes.xaxis, [100 * s for s in shares])
    speed_axis(axes.yaxis, [*speed, *(ratio for _, ratio, _ in shown), 1 / span[0], 1 / span[1]])
    axes.grid(alpha=0.25)


def _by(record: Record, key: str) -> list[Mapping[str, Any]]:
    return sorted(record.sweep, key=lambda p: float(p[key]))


def _column(points: Sequence[Mapping[str, Any]], *keys: str) -> list[float]:
    values = []
    for point in points:
        value: Any = point
        for key in keys:
            value = value[key]
        values.append(float(value))
    return values
