"""What the pictures of a comparison share: colours, panels, titles, small print, and an axis that a cliff leaves readable.

Colours are told apart without colour vision, and nothing by colour alone: each line and mark has its own shape, so that a picture
printed in grey reads the same.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from dendrofx.compare.records import Record
from dendrofx.compare.text import machine_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, GREY, PALE, BLACK = "#0072B2", "#D55E00", "#009E73", "#666666", "#BBBBBB", "#000000"
WIDTH = 4.6  # of a panel, inches
COLUMNS = 3
BENT = "Deviation is drawn linearly up to the dotted line, and logarithmically beyond."
_STEPS = (1, 2, 5)


def panels(count: int, ratios: Sequence[float], height: float, title: str) -> tuple[Figure, list[list[Axes]]]:
    """Return a figure of panels, at most three beside each other, and the axes of each from top to bottom.

    Args:
        count: of the panels.
        ratios: the heights of a panel's axes, relative to each other; these share what is across.
        height: of a panel, inches.
        title: of the figure.
    """
    columns = min(count, COLUMNS)
    rows = -(-count // columns)
    figure = titled(title, WIDTH * columns + 0.5, height * rows + 1.0)
    grid = figure.add_gridspec(rows, columns)
    found = []
    for i in range(count):
        cell = grid[i // columns, i % columns].subgridspec(len(ratios), 1, height_ratios=list(ratios))
        axes: list[Axes] = []
        for place in range(len(ratios)):
            axes.append(figure.add_subplot(cell[place], sharex=axes[0] if axes else None))
        for upper in axes[:-1]:
            upper.tick_params(labelbottom=False)
        found.append(axes)
    return figure, found


def titled(title: str, width: float, height: float) -> Figure:
    """Return an empty figure, inches, under its title."""
    figure = plt.figure(figsize=(width, height), layout="constrained")
    figure.suptitle(textwrap.fill(title, int(10 * width)), fontsize=12)
    return figure


def name(record: Record) -> str:
    """Return the case for a title, with whether it is made up."""
    case = record.prepared.case
    return f"{case.name}{' (synthetic)' if case.synthetic else ''}"


def heading(record: Record) -> str:
    """Return the title of a panel: the batch size, and whether the machine was disturbed."""
    order = "" if len(record.prepared.case.orders) == 1 else f", {record.order}"
    return f"batch {record.batch}{order}{', NOISY' if record.noisy else ''}"


def limit_of(record: Record) -> float:
    """Return the budget for the mean deviation, in percent; 0 where the budget is about something else."""
    prepared = record.prepared
    return 100 * prepared.limit if prepared.budget_name == "deviation" else 0.0


def small_print(figure: Figure, records: Sequence[Record], machine: Mapping[str, str], note: str = "") -> None:
    """Write below a figure what it was measured on, and before that a note."""
    ratios = ", ".join(f"{r.aa_ratio:.2f}" for r in records)
    lines = [note, f"{machine_line(records[0].threads, machine)}; A/A {ratios}"]
    wrapped = [part for line in lines for part in textwrap.wrap(line, int(figure.get_size_inches()[0] * 18))]
    figure.draw_without_rendering()  # places the legend, which is below the figure's edge: `png` takes in what is there
    figure.set_layout_engine("none")  # it stays so, and saving does not lay it out twice more
    inverse = figure.transFigure.inverted()
    low = min([inverse.transform(found.get_window_extent())[0][1] for found in figure.legends], default=-0.01)
    figure.text(0.01, low - 0.005, "\n".join(wrapped), fontsize=7, color=GREY, ha="left", va="top")


def legend(figure: Figure, every: Iterable[Axes], columns: int) -> None:
    """Put one legend below all panels, each label once."""
    found: dict[str, Any] = {}
    for axes in every:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if found:
        figure.legend(
            list(found.values()), list(found), loc="upper center", bbox_to_anchor=(0.5, 0), ncols=columns, fontsize=8,
            frameon=False,
        )  # fmt: skip


def budget_line(axes: Axes, limit: float, upright: bool, named: bool = True) -> None:
    """Draw the budget, in percent, across an axis of deviations; nothing where there is none."""
    if limit <= 0:
        return
    (axes.axvline if upright else axes.axhline)(limit, color=GREY, lw=1, ls="-.")
    if named:
        place = (limit, 1) if upright else (1, limit)
        axes.annotate(
            f"budget {limit:g} %", place, xycoords=("data", "axes fraction") if upright else ("axes fraction", "data"),
            xytext=(-4, -5) if upright else (-5, 4), textcoords="offset points", ha="right", va="top" if upright else "bottom",
            rotation=90 if upright else 0, color=GREY, fontsize=8, zorder=4,
            bbox={"fc": "white", "ec": "none", "pad": 1, "alpha": 0.85},
        )  # fmt: skip


def png(figure: Figure) -> bytes:
    """Return the figure as a PNG, and close it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=125, format="png", bbox_inches="tight", pad_inches=0.12)
    plt.close(figure)
    return buffer.getvalue()


def speed_axis(axis: Axis, speeds: Iterable[float]) -> None:
    """Make an axis of speed-ups logarithmic, so that twice as fast is as far from 1 as half."""
    shown = [s for s in speeds if s > 0 and math.isfinite(s)]
    low, high = min([*shown, 0.8]) / 1.15, max([*shown, 1.5]) * 1.15
    _span(axis, low, high)
    _ticks(axis, _nice(low, high, (1, 2, 5) if high / low > 12 else (1, 1.5, 2, 3, 5, 7)), "x")


def share_axis(axis: Axis, shares: Iterable[float]) -> None:
    """Make an axis of shares, in percent, logarithmic."""
    shown = [s for s in shares if s > 0]
    low, high = min(shown) / 1.3, max([*shown, 100]) * 1.15
    _span(axis, low, high)
    _ticks(axis, _nice(low, high, (1, 2, 5)), "%")


def deviation_axis(axis: Axis, near: Iterable[float], far: Iterable[float]) -> float:
    """Make an axis of deviations, in percent, linear up to where those of interest end, and logarithmic beyond.

    Sending the last rows to light can raise the deviation a hundredfold. A linear axis would show that step and nothing before it,
    a logarithmic one mostly decades of rounding.

    Args:
        axis: of the plot.
        near: what is to be readable.
        far: whatever else is drawn.

    Returns:
        Where it ceases to be linear; infinity where all of it is.
    """
    wanted = [v for v in near if math.isfinite(v)]
    end = _round_up(max([*wanted, 1e-6]))
    last = max([v for v in far if math.isfinite(v)] + [end])
    every = axis.axes.set_xscale if axis is axis.axes.xaxis else axis.axes.set_yscale
    limit = axis.axes.set_xlim if axis is axis.axes.xaxis else axis.axes.set_ylim
    quarters = [end * i / 4 for i in range(5)]
    if last <= 2.5 * end:
        limit(-0.03 * last, 1.06 * last)
        axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g} %"))
        return math.inf
    decades = math.log10(last / end)
    linear = max(1.0, 1.7 * decades)
    every("symlog", linthresh=end, linscale=linear)
    limit(-0.03 * end, last * 10 ** (0.06 * (decades + linear)))
    _ticks(axis, [*quarters, *_nice(2 * end, 1.5 * last, _STEPS if decades < 1.2 else (1,))], "%")
    return end


def _round_up(value: float) -> float:
    """Return the next of 1, 2, 4, 6, 8 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return float(f"{power * next(s for s in (1, 2, 4, 6, 8, 10) if s >= value / power - 1e-9):.6g}")


def _nice(low: float, high: float, steps: Sequence[float]) -> list[float]:
    """Return round figures in a range that is drawn logarithmically."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [v for p in powers for s in steps if low <= (v := float(f"{s * 10.0**p:.6g}")) <= high]


def _span(axis: Axis, low: float, high: float) -> None:
    if axis is axis.axes.xaxis:
        axis.axes.set_xscale("log")
        axis.axes.set_xlim(low, high)
    else:
        axis.axes.set_yscale("log")
        axis.axes.set_ylim(low, high)


def _ticks(axis: Axis, places: Sequence[float], unit: str) -> None:
    axis.set_major_locator(FixedLocator(places))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.4g} {unit}"))
    axis.set_minor_formatter(NullFormatter())
