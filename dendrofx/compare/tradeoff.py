"""The picture: speed-up against deviation, and how many answers stay the same, a panel for each batch size.

The routed module at every tolerance of its sweep, and what else a user could have at a deviation: one light form on every row, a
random gate at the same activity, and the peers. The point in use is marked, and the title says where the machine was noisy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dendrofx.compare.drawing import (
    BENT,
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    budget_line,
    deviation_axis,
    heading,
    legend,
    limit_of,
    name,
    panels,
    small_print,
    speed_axis,
)
from dendrofx.compare.prepare import STATIC
from dendrofx.compare.records import Record, Row
from dendrofx.compare.variants import Peer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RANDOM = "random gate, as many rows in full (drawn at routed's speed)"
_PEERS = "sPXhp8d"


def plot_tradeoff(records: Sequence[Record], machine: Mapping[str, str]) -> Figure:
    """Return the figure.

    Args:
        records: with a sweep each, of one case.
        machine: see `describe_machine`.
    """
    answers = any(p["agreement"] is not None for r in records for p in r.sweep)
    title = f"{name(records[0])}: what a deviation buys"
    figure, grid = panels(len(records), (4, 1.1) if answers else (1,), 5.2 if answers else 4.2, title)
    bent = False
    for axes, record in zip(grid, records, strict=True):
        bent |= _panel(axes, record)
        axes[0].set_title(heading(record), fontsize=10)
        axes[-1].set_xlabel("mean deviation from the original")
    grid[0][0].set_ylabel("speed-up over scripted")
    if answers:
        grid[0][1].set_ylabel("same answers")
    legend(figure, [axes for cell in grid for axes in cell], min(len(records), 3))
    small_print(figure, records, machine, BENT if bent else "")
    return figure


def _panel(axes: Sequence[Axes], record: Record) -> bool:
    """Draw one batch size; return whether its deviations are drawn logarithmically at the end."""
    main = axes[0]
    points = sorted(record.sweep, key=lambda p: float(p["deviation"]["mean"]))
    far = [100 * float(p["deviation"]["mean"]) for p in points]
    speed = [float(p["speedup_vs_scripted"]) for p in points]
    random = [100 * float(p["random_deviation"]["mean"]) for p in points]
    ideal = [1 / float(p["effective_compute"]) for p in points]
    main.plot(far, ideal, "--", color=BLUE, lw=1, label="ideal: 1 / effective compute")
    main.plot(random, speed, "x:", color=GREY, lw=1.2, ms=5, label=RANDOM)
    main.plot(far, speed, "o-", color=BLUE, ms=5, label="routed, by tolerance")
    marks = _marks(record)
    for row, (marker, colour, size, label) in marks:
        place = [100 * row.quality.mean]
        main.plot(place, [record.speedup(row, "scripted") or math.nan], marker, color=colour, ms=size, mec="white", ls="",
                  zorder=3, label=label)  # fmt: skip
        if len(axes) > 1 and row.quality.agreement is not None:
            axes[1].plot(place, [100 * row.quality.agreement], marker, color=colour, ms=0.7 * size, mec="white", ls="")
    if len(axes) > 1:
        _answers(axes[1], record, far, [100 * float(p["agreement"]) for p in points])
    main.axhline(1, color=BLACK, lw=1)
    speed_axis(main.yaxis, [*speed, *ideal, *(record.speedup(row, "scripted") or 1.0 for row, _ in marks)])
    limit = limit_of(record)
    inner = [100 * float(p["deviation"]["mean"]) for p in points if p["activity"] > 0]
    near = [*inner, limit] if limit <= 4 * max([*inner, 0.0]) else inner
    end = deviation_axis(main.xaxis, near, [*far, *random, limit, *(100 * row.quality.mean for row, _ in marks)])
    for each in axes if math.isfinite(end) else ():
        each.axvline(end, color=GREY, lw=0.8, ls=":")
    for each in axes:
        budget_line(each, limit, upright=True, named=each is main)
        each.grid(alpha=0.25)
    return math.isfinite(end)


def _answers(axes: Axes, record: Record, far: Sequence[float], same: Sequence[float]) -> None:
    """Draw how many answers are the original's."""
    axes.plot(far, same, "o-", color=BLUE, ms=3.5)
    shown = [*same, *(100 * r.quality.agreement for r, _ in _marks(record) if r.quality.agreement is not None)]
    low = min([*shown, 99.0])
    axes.set_ylim(low - 0.15 * (100 - low), 100 + 0.15 * (100 - low))
    axes.yaxis.set_major_formatter(lambda v, _: f"{v:g} %")
    axes.locator_params(axis="y", nbins=4)


def _marks(record: Record) -> list[tuple[Row, tuple[str, str, float, str]]]:
    """Return the timed rows that are no sweep, with marker, colour, size and label: the one in use, its static rival, the peers."""
    styles = {
        record.prepared.main: ("*", BLACK, 15.0, "routed, in use"),
        STATIC: ("D", ORANGE, 8.0, "one light form on every row"),
        "always-light": ("v", GREY, 7.0, "routed's light branches on every row, gates run"),
    }
    peers = [r.variant.name for r in record.rows if isinstance(r.variant.module, Peer)]
    for number, peer in enumerate(peers):
        styles[peer] = (_PEERS[number % len(_PEERS)], GREEN, 7.0, peer.removeprefix("peer:"))
    timed = [row for row in record.rows if row.ms is not None]
    return [(row, styles[row.variant.name]) for row in timed if row.variant.name in styles]
