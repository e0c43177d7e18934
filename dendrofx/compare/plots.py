"""Two plots of a sweep. Colours are told apart without colour vision, and every curve carries its marks and name."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from dendrofx.compare.records import Record
from dendrofx.compare.variants import UNTIMED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY, BLACK = "#0072B2", "#D55E00", "#767676", "#000000"


def plot_sweep(record: Record, machine: str) -> dict[str, Figure]:
    """Return `{"activity": ..., "compute": ...}`: deviation and latency against activity; speed-up against effective compute."""
    return {"activity": _by_activity(record, machine), "compute": _by_compute(record, machine)}


def png(figure: Figure) -> bytes:
    """Return the figure as a PNG, and close it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=150, format="png")
    plt.close(figure)
    return buffer.getvalue()


def _title(record: Record, machine: str) -> str:
    case = record.prepared.case
    kind = " (synthetic)" if case.synthetic else ""
    noisy = ", noisy machine" if record.noisy else ""
    threads = f"{record.threads} thread{'s' if record.threads > 1 else ''}"
    return f"{case.name}{kind}, batch {record.batch}, {threads}, {machine}{noisy}"


def _column(points: Sequence[Any], *keys: str) -> list[float]:
    values = []
    for value in points:
        for key in keys:
            value = value[key]
        values.append(float(value))
    return values


def _by_activity(record: Record, machine: str) -> Figure:
    points = sorted(record.sweep, key=lambda p: float(p["activity"]))
    active = [100 * a for a in _column(points, "activity")]
    figure, (upper, lower) = plt.subplots(2, 1, sharex=True, figsize=(7.5, 7.5), layout="constrained")
    figure.suptitle(_title(record, machine), fontsize=11)
    upper.plot(active, _column(points, "deviation", "mean"), "o-", color=BLUE, label="routed, mean")
    upper.plot(active, _column(points, "deviation", "p99"), "o:", color=BLUE, label="routed, 99th percentile")
    upper.plot(active, _column(points, "random_deviation", "mean"), "s--", color=ORANGE, label="random gate, mean")
    light = record.row("always-light")
    if light is not None:
        upper.plot([0], [light.quality.mean], "D", color=BLACK, mfc="none", ms=9, ls="", label="always-light, mean")
    budget = record.prepared.plan.max_deviation
    upper.axhline(budget, color=GREY, lw=1)
    upper.annotate(
        f"budget {budget:g}", (1, budget), xycoords=("axes fraction", "data"), ha="right", va="bottom", color=GREY
    )
    upper.set_yscale("symlog", linthresh=_linear_below(points))
    upper.set_ylim(bottom=0)
    upper.set_ylabel("deviation (relative L2)")
    _baseline(lower, record)
    lower.errorbar(active, _column(points, "latency_ms", "p50"), yerr=_up_to_p95(points), fmt="o-", color=BLUE, capsize=2,
                   label="routed, p50 to p95")  # fmt: skip
    lower.set_ylabel("latency (ms)")
    lower.set_ylim(bottom=0)
    lower.set_xlabel("activity: rows that take the full branch (%)")
    for axes in (upper, lower):
        axes.legend(fontsize=9, framealpha=1, edgecolor="none")
        axes.grid(alpha=0.25)
    return figure


def _baseline(axes: Axes, record: Record) -> None:
    for name, style in (("scripted", "-"), ("always-light", "--"), ("static-light", ":")):
        row = record.row(name)
        if row is not None and row.timing is not None:
            axes.axhline(
                row.timing.p50, color=BLACK if name == "scripted" else GREY, lw=1.2, ls=style, label=f"{name}, p50"
            )


def _by_compute(record: Record, machine: str) -> Figure:
    points = sorted(record.sweep, key=lambda p: float(p["effective_compute"]))
    compute = _column(points, "effective_compute")
    figure, axes = plt.subplots(figsize=(7.5, 5.5), layout="constrained")
    axes.set_title(_title(record, machine), fontsize=11)
    span = [min([*compute, 1.0]), max([*compute, 1.0])]
    steps = [span[0] + (span[1] - span[0]) * i / 100 for i in range(101)]
    axes.plot(
        [100 * s for s in steps], [1 / s for s in steps], color=GREY, lw=1.2, label="ideal: 1 / effective compute"
    )
    axes.plot(
        [100 * c for c in compute], _column(points, "speedup_vs_scripted"), "o-", color=BLUE, label="routed, sweep"
    )
    marks = {"always-light": "s", "static-light": "D", "random": "^", "always-full": "v", "dead-units": "P"}
    for row in record.rows:
        name, share = row.variant.name, row.quality.effective_compute
        if (
            name in marks
            and name not in UNTIMED
            and share is not None
            and (speed := record.speedup(row, "scripted")) is not None
        ):
            axes.plot([100 * share], [speed], marks[name], color=ORANGE, ms=7, ls="", label=name)
    axes.axhline(1, color=BLACK, lw=1)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda v, _: f"{v:g} x"))
    axes.yaxis.set_minor_formatter(matplotlib.ticker.FuncFormatter(lambda v, _: f"{v:g} x" if v < 10 else ""))
    axes.set_xlabel(
        "effective compute (% of the original's multiply-adds, weighted by bits;\ngate, light and padding included)"
    )
    axes.set_ylabel("speed-up over scripted")
    axes.legend(frameon=False, fontsize=9)
    axes.grid(alpha=0.25, which="both")
    return figure


def _linear_below(points: Sequence[Any]) -> float:
    """Return where the logarithmic axis turns linear, so that an exact 0 can be drawn."""
    positive = [v for v in _column(points, "deviation", "mean") if v > 0]
    return max(min(positive, default=1e-6), 1e-8)


def _up_to_p95(points: Sequence[Any]) -> list[list[float]]:
    p50, p95 = _column(points, "latency_ms", "p50"), _column(points, "latency_ms", "p95")
    return [[0.0] * len(p50), [max(b - a, 0.0) for a, b in zip(p50, p95, strict=True)]]
