"""The sweep of a comparison: its routed module at tolerances spaced so that activity moves from 100 % to 0 %.

The tolerances are the global multiplier's, at even steps of activity on the calibration rows that chose the gates: a
fixed list of thresholds would put nearly all points at one end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from dendrofx.compare import controls
from dendrofx.compare.bench import Bench
from dendrofx.compare.points import Setting, sweep
from dendrofx.compare.text import percent, text_table
from dendrofx.compare.variants import Variant
from dendrofx.rewriting.module import RoutedModule
from dendrofx.runtime.scores import UNJUDGED
from dendrofx.search.calibrate import multiplier_grid
from dendrofx.values.meta import RECIPE

INNER_POINTS = 9
ALL_LIGHT = 2 * UNJUDGED  # above every finite score: only rows that are not finite stay hard


def sweep_tolerances(routed: RoutedModule) -> list[float]:
    """Return 0 (all full), nine steps of about 10 % of activity, and one at which every finite row is light."""
    source = controls.recipe(routed)
    names = [s.name for s in source.sites]
    grid = multiplier_grid([source.scores[n] for n in names], [s.macs for s in source.sites], INNER_POINTS + 1)
    return [0.0, *grid[:INNER_POINTS], ALL_LIGHT]


def run_sweep(bench: Bench, variants: Mapping[str, Variant]) -> list[dict[str, Any]]:
    """Measure the routed module of a comparison at every tolerance.

    Returns:
        One record per tolerance: activity, effective compute, latency, speed-up, deviation and agreement, and the deviation of a
        random gate at the same activity, measured on the same rows.
    """
    source = controls.recipe(bench.prepared.routed)
    routed = source.build()  # with the full branches that a site of `NoGate` goes without
    routed.meta[RECIPE] = source
    settings = [
        Setting(str(t), t, {site: t * weight for site, weight in source.weights.items()}, random=True)
        for t in sweep_tolerances(routed)
    ]
    quality = partial(bench.quality, counted=True)
    swept = sweep(settings, routed, variants["scripted"].module, quality, bench.time, bench.seed)
    return [p.to_json() for p in swept.points]


def sweep_table(points: Sequence[Mapping[str, Any]]) -> str:
    """Return one line per tolerance."""
    rows = [
        [
            "all light" if p["tolerance"] > UNJUDGED else f"{p['tolerance']:.3g}",
            percent(p["activity"]),
            percent(p["effective_compute"]),
            f"{p['latency_ms']['p50']:.3g}",
            f"{p['speedup_vs_scripted']:.2f}",
            f"{p['deviation']['mean']:.2e}",
            f"{p['deviation']['p99']:.2e}",
            f"{p['random_deviation']['mean']:.2e}",
            percent(p["agreement"], ".2f"),
        ]
        for p in points
    ]
    headers = [
        "tolerance", "activity %", "compute %", "p50 ms", "x scripted", "dev mean", "dev p99", "random dev mean", "agree %",
    ]  # fmt: skip
    return text_table(rows, headers, named=False)
