"""The picture: speed-up against deviation, one panel a batch size.

The routed module at every tolerance of its sweep, and what else a user could have at a deviation: one light form on every row, a
random gate at the same activity, and the peers. The point in use is marked, and the title says where the machine was noisy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from dendrofx.compare.prepare import STATIC
from dendrofx.compare.records import Record
from dendrofx.compare.variants import Peer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY, BLACK, GREEN = "#0072B2", "#D55E00", "#767676", "#000000", "#009E73"
LEAST = 1e-7  # deviations below it are rounding, and drawn at the left edge


def plot_tradeoff(records: Sequence[Record], machine: str) -> Figure:
    """Return the figure.

    Args:
        records: with a sweep each, of one case.
        machine: the CPU's name, for the title.
    """
    columns = min(len(records), 3)
    rows = -(-len(records) // columns)
    size = (4.6 * columns + 0.6, 4.4 * rows + 0.8)
    figure, grid = plt.subplots(rows, columns, squeeze=False, figsize=size, layout="constrained")
    case, threads = records[0].prepared.case, records[0].threads
    made_up = " (synthetic)" if case.synthetic else ""
    plural = "s" if threads > 1 else ""
    parts = [f"{case.name}{made_up}: what a deviation buys", f"{threads} thread{plural}, {machine}"]
    figure.suptitle(("\n" if columns == 1 else ", ").join(parts), fontsize=11)
    panels = [axes for line in grid for axes in line]
    for axes, record in zip(panels, records, strict=False):
        _panel(axes, record)
    for axes in panels[len(records) :]:
        axes.set_visible(False)
    return figure


def _panel(axes: Axes, record: Record) -> None:
    """Draw one batch size."""
    points = sorted(record.sweep, key=lambda p: float(p["deviation"]["mean"]))
    far = [_shown(p["deviation"]["mean"]) for p in points]
    speed = [float(p["speedup_vs_scripted"]) for p in points]
    axes.plot(far, speed, "o-", color=BLUE, ms=5, label=f"routed, by tolerance{_answers(points)}")
    random = [_shown(p["random_deviation"]["mean"]) for p in points]
    axes.plot(random, speed, ":", color=GREY, lw=1.4, label="random gate, as many rows")
    ideal = [1 / float(p["effective_compute"]) for p in points]
    axes.plot(far, ideal, "--", color=BLUE, lw=1, alpha=0.6, label="ideal: 1 / effective compute")
    _marks(axes, record)
    limit = record.prepared.plan.max_deviation
    if limit > 0:
        axes.axvline(100 * limit, color=GREY, lw=1, ls="--")
        axes.annotate("budget", (100 * limit, 0.02), xycoords=("data", "axes fraction"), rotation=90,
                      ha="right", va="bottom", color=GREY, fontsize=8)  # fmt: skip
    axes.axhline(1, color=BLACK, lw=1)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda v, _: f"{v:g} %"))
    axes.yaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda v, _: f"{v:g} x"))
    order = "" if len(record.prepared.case.orders) == 1 else f", {record.order}"
    axes.set_title(f"batch {record.batch}{order}{', NOISY' if record.noisy else ''}", fontsize=10)
    axes.set_xlabel("mean deviation from the original")
    axes.set_ylabel("speed-up over scripted")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, framealpha=0.9, edgecolor="none", loc="best")


def _answers(points: Sequence[Mapping[str, Any]]) -> str:
    """Return how many answers are the original's over the sweep, where outputs are decisions."""
    same = [100 * float(p["agreement"]) for p in points if p["agreement"] is not None]
    if not same:
        return ""
    low, high = f"{min(same):.4g}", f"{max(same):.4g}"
    return f" ({low if low == high else f'{low} to {high}'} % same answers)"


def _marks(axes: Axes, record: Record) -> None:
    """Draw the rows that are no sweep: the one in use, its static rival, the peers."""
    styles = {
        record.prepared.main: ("*", BLUE, 15, "in use"),
        STATIC: ("D", ORANGE, 8, "one light form on every row"),
        "always-light": ("v", GREY, 7, "these branches, all light"),
    }
    for row in record.rows:
        name, ratio = row.variant.name, record.speedup(row, "scripted")
        if ratio is None or (name not in styles and not isinstance(row.variant.module, Peer)):
            continue
        marker, colour, size, label = styles.get(name, ("s", GREEN, 6, name))
        axes.plot([_shown(row.quality.mean)], [ratio], marker, color=colour, ms=size, mec="white", ls="", label=label)


def _shown(deviation: float) -> float:
    """Return a deviation in percent, not below what a logarithmic axis can show."""
    return 100 * max(deviation, LEAST)
