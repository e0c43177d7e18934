"""Fitting `Routed` forms: block routing inside a cascade's light or full model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import fx

from dendrofx.finish import finish
from dendrofx.graph.sites import Sites
from dendrofx.light.routed import Routed
from dendrofx.plan.plan import Plan
from dendrofx.rewriting.module import RoutedModule
from dendrofx.rewriting.rewrite import Branches
from dendrofx.search.explore import Options
from dendrofx.search.pipeline import Pipeline
from dendrofx.search.stopwatch import Timer
from dendrofx.values.calibration import Calibration
from dendrofx.values.counts import site_compute


@dataclass(frozen=True)
class RoutedModel:
    """A model with routed blocks.

    Attributes:
        module: calibrated.
        plan: of its sites; replayed, it makes the module again.
        branches: of the routed sites.
        work: multiply-adds of all sites on calibration samples, weighted by bits, over those of their blocks.
    """

    module: RoutedModule
    plan: Plan
    branches: Mapping[str, Branches]
    work: float


def fit_routed(
    form: Routed, base: fx.GraphModule, sites: Sites, data: Calibration, options: Options, timer: Timer | None
) -> RoutedModel:
    """Route the blocks of a model within a deviation; where that does not pay, no site is routed, and the plan says why.

    Args:
        form: how far the output may deviate.
        base: the graph, on live rows where dead ones are dropped.
        sites: the selected sites of `base`.
        data: calibration; its test set is left alone.
        options: those of the cascade; of them decide, seed, batch sizes and what must be gained.
        timer: what times; None decides by counted cost.
    """
    inside = replace(
        options,
        max_deviation=form.max_deviation,
        lights=None,
        gate=None,
        full=None,
        budget=None,
        exact=timer is not None,
        light_models=(),
        full_model=None,
    )
    run = Pipeline(base, sites, data, inside, timer)
    module = finish(run.run(), run, None, None)
    total = sum(s.macs for s in sites)
    counts = run.steps[-1].counts if run.steps and run.chosen else {}
    computed = sum(s.macs * (site_compute(counts[s.name]) if s.name in counts else 1.0) for s in sites)
    branches = {n: c.branches for n, c in run.chosen.items()}
    return RoutedModel(module, replace(module.plan, capture=""), branches, computed / max(total, 1))
