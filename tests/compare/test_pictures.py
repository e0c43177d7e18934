"""The pictures: what a cliff leaves readable, what is said on them, what is drawn as measured and what as counted."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from benchmarks.cases.digits_picture import hardness
from dendrofx import LearnedGate, LowRank, Plan, SitePlan
from dendrofx.compare.drawing import deviation_axis
from dendrofx.compare.explanation import Explanation, SiteRoutes
from dendrofx.compare.files import wrote_line
from dendrofx.compare.plots import plot_activity, plot_compute
from dendrofx.compare.records import Record
from dendrofx.compare.site_bars import bars, plot_sites
from dendrofx.compare.tradeoff import plot_tradeoff
from dendrofx.values.counts import of_sites, site_compute
from dendrofx.values.inputs import Inputs
from dendrofx.values.measure import counted
from tests.made import batches, made
from tests.made_records import MACHINE, ROWS, record, row

SITES = [
    SitePlan("a", "routed", "", light=LowRank(8), gate=LearnedGate(), block_ms=3.0, measured_ms=1.0, predicted_ms=0.9),
    SitePlan("b", "routed", "", light=LowRank(8), gate=LearnedGate(), block_ms=3.0, predicted_ms=2.0),
    SitePlan("c", "refused", "", block_ms=0.1, predicted_ms=0.4),
    SitePlan("d", "refused", ""),
]


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    plt.close("all")


def swept(batch: int, noisy: str = "") -> Record:
    """A record whose deviation is small until the last rows turn light."""
    rows = [replace(r, quality=replace(r.quality, activity=0.1, effective_compute=0.3, agreement=0.99)) for r in ROWS]
    found = record(*rows, row("peer:other", 4.0, 0.14))
    sweep = []
    for i in range(11):
        far = {"mean": 0.3 if i == 10 else 0.0001 * i, "p99": 0.5, "max": 0.9}
        sweep.append({
            "activity": 1 - i / 10, "effective_compute": 1.1 - i / 11, "latency_ms": {"p50": 12.0 - i, "p95": 13.0},
            "speedup_vs_scripted": 10 / (12 - i), "deviation": far, "agreement": 1.0, "random_deviation": far,
        })  # fmt: skip
    return replace(found, batch=batch, noisy=noisy, sweep=sweep)


def texts(figure: Figure) -> str:
    """All that is written outside of plots, with their titles."""
    return "\n".join([*(t.get_text() for t in figure.texts), *(a.get_title() for a in figure.axes)])


# ---------------------------------------------------------------------------------------------------------- the axis


@pytest.mark.parametrize("way", ["x", "y"])
def test_what_lies_before_a_cliff_has_most_of_the_axis(way: str) -> None:
    _, axes = plt.subplots()
    end = deviation_axis(axes.xaxis if way == "x" else axes.yaxis, [0.0, 0.01, 0.05], [30.0])
    data, inside = axes.transData, axes.transAxes.inverted()

    def place(value: float) -> float:
        x, y = inside.transform(data.transform((value, 0.0) if way == "x" else (0.0, value)))
        return float(x if way == "x" else y)

    assert 0.05 <= end <= 0.1
    assert place(0.0) >= 0
    assert place(0.05) - place(0.0) > 0.4
    assert place(0.025) - place(0.0) == pytest.approx(place(0.05) - place(0.025), abs=0.01), "linear before it"
    assert place(30.0) < 1


def test_an_axis_without_a_cliff_is_linear() -> None:
    _, axes = plt.subplots()
    assert deviation_axis(axes.xaxis, [0.0, 0.5, 1.0], [1.2]) == float("inf")
    assert axes.get_xscale() == "linear"


# ---------------------------------------------------------------------------------------------------- what they say


@pytest.mark.parametrize("plot", [plot_tradeoff, plot_activity, plot_compute])
@pytest.mark.parametrize("sizes", [(256,), (1, 32, 256)])
def test_noise_machine_and_threads_are_on_a_picture_and_nothing_covers_them(plot: Any, sizes: tuple[int, ...]) -> None:
    figure = plot([swept(size, "busy" if size == 256 else "") for size in sizes], MACHINE)
    said = texts(figure)
    assert [f"batch {size}" in said for size in sizes] == [True] * len(sizes)
    assert said.count("NOISY") == 1
    assert "batch 256, NOISY" in said
    assert re.search(r"1 thread; a CPU, 2\s+cores, AVX2; torch 2\.13,\s+Python 3\.11; A/A", said)
    figure.draw_without_rendering()
    (legend,), small = figure.legends, figure.texts[-1]
    assert not legend.get_window_extent().overlaps(small.get_window_extent())
    assert all(not a.get_window_extent().overlaps(legend.get_window_extent()) for a in figure.axes)


def test_the_trade_off_shows_the_peers_the_point_in_use_and_the_answers() -> None:
    figure = plot_tradeoff([swept(64)], MACHINE)
    labels = {t.get_text() for t in figure.legends[0].get_texts()}
    assert {"other", "routed, in use", "one light form on every row", "ideal: 1 / effective compute"} <= labels
    assert [a.get_ylabel() for a in figure.axes] == ["speed-up over scripted", "same answers"]


def test_latency_is_over_the_original_of_its_own_race() -> None:
    """The sweep's original takes 10 ms as the table's does, or twice that on a slower minute: the curve is the same."""
    slow = swept(64)
    points = [{**p, "latency_ms": {k: 2 * v for k, v in p["latency_ms"].items()}} for p in slow.sweep]
    drawn = [plot_activity([r], MACHINE).axes[1].lines[0].get_ydata() for r in (slow, replace(slow, sweep=points))]
    assert list(drawn[0]) == list(drawn[1]) == pytest.approx([10.0 * (12 - i) for i in range(10, -1, -1)])


# ----------------------------------------------------------------------------------------------------------- the sites


def test_times_are_the_plans_and_say_what_was_measured() -> None:
    found = bars(record(plan=Plan(SITES, 0.01), refused=True))
    assert [(b.label, b.block, b.after, b.measured, b.refused) for b in found] == [
        ("a", 3.0, 1.0, True, False),
        ("b", 3.0, 2.0, False, False),
        ("c", 0.1, 0.4, False, True),
    ]
    assert all(b.parts is None for b in found)
    figure = plot_sites([record(plan=Plan(SITES, 0.01), refused=True)], MACHINE)
    assert figure is not None
    labels = [t.get_text() for t in figure.legends[0].get_texts()]
    assert labels == [
        "block, measured",
        "routed site as a whole, measured",
        "routed site, sum of parts that were timed apart",
        "refused: its cheapest light + gate + full",
    ]


def test_parts_are_counted_and_add_up_to_the_sites_compute() -> None:
    module = made("every-site").module
    given = [Inputs.of(b) for b in batches()]
    found: Any = record(plan=module.plan)
    done = counted(module, given)
    rows = [replace(r, quality=replace(r.quality, counts=done)) if r is found.routed else r for r in found.rows]
    found = replace(found, prepared=replace(found.prepared, modules={"routed": module}), rows=rows)
    drawn = bars(found)
    counts = of_sites(done)
    assert [b.label for b in drawn if b.parts] == list(counts)
    assert [sum(b.parts or ()) for b in drawn if b.parts] == pytest.approx([site_compute(c) for c in counts.values()])
    assert all(b.block is None for b in drawn), "nothing was timed"
    figure = plot_sites([found], MACHINE)
    assert figure is not None
    assert {t.get_text() for t in figure.legends[0].get_texts()} == {"light, counted", "gate, counted", "full, counted"}


def test_no_picture_of_sites_of_which_nothing_is_known() -> None:
    assert plot_sites([record(plan=Plan(SITES[3:], 0.01), refused=True)], MACHINE) is None


# ------------------------------------------------------------------------------------------------- images, files


def test_the_hardest_rows_are_those_that_exceed_a_tolerance_most() -> None:
    score = torch.tensor([[0.1, 0.5, 2.0], [0.3, torch.nan, 0.1]])
    zeros, rows = torch.zeros(3, dtype=torch.long), torch.arange(3)
    sites = tuple(
        SiteRoutes(name, limit, rows, zeros, ~(s < limit), zeros.bool(), s, s.double())
        for name, limit, s in zip("ab", (1.0, 0.5), score, strict=True)
    )
    hard = hardness(Explanation(sites))
    assert hard.tolist() == pytest.approx([0.6, torch.inf, 2.0])
    assert (hard >= 1).tolist() == torch.stack([s.hard for s in sites]).any(0).tolist()


def test_every_file_is_named_and_lines_fit() -> None:
    names = [f"digits-plan-b{b}.json" for b in (1, 32, 256)]
    names += [f"digits-{n}.png" for n in ("tradeoff", "activity", "compute", "sites", "images")]
    names += [f"digits-b{b}-t2.csv" for b in (1, 256)]
    lines = wrote_line([*(Path("out") / n for n in names), Path("out/figures.json")])
    assert max(map(len, lines.splitlines())) <= 100
    assert " ".join(lines.split()) == (
        "Wrote out/: digits-plan-b{1,32,256}.json, digits-{tradeoff,activity,compute,sites,images}.png,"
        " digits-b{1,256}-t2.csv, figures.json"
    )
