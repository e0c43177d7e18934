"""Fit `RoutedBlocks` forms: block routing inside a cascade's light or full model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from dendrofx.light.routed_blocks import RoutedBlocks
from dendrofx.plan.plan import Plan
from dendrofx.request import Request
from dendrofx.rewriting.module import RoutedModule
from dendrofx.rewriting.rewrite import Branches
from dendrofx.search.decide_blocks import plainly_decided, search
from dendrofx.search.timer import Timer
from dendrofx.subject import Subject
from dendrofx.values.counts import site_compute
from dendrofx.values.covered import Covered


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
    form: RoutedBlocks, subject: Subject, request: Request, covered: Covered, timer: Timer | None
) -> RoutedModel:
    """Route the blocks of a model within a deviation; where that does not pay, no site is routed, and the plan says why.

    Args:
        form: how far the output may deviate.
        subject: the model; the test set of its calibration is left alone.
        request: that of the cascade; of it decide, seed, batch sizes and what must be gained.
        covered: the outputs that count.
        timer: what times; None decides by counted cost.
    """
    inside = Request(
        form.max_deviation,
        decide=request.decide,
        seed=request.seed,
        batch_sizes=request.batch_sizes,
        min_speedup=request.min_speedup,
        exact=timer is not None,
        output=request.output,
    )
    # it stands for a model of its own: what it is raced against runs on the same rows
    space, raced = search(replace(subject, original=subject.graph, dead=None, example=None), inside, timer, covered)
    decision = plainly_decided(space, raced, timer)
    made = raced.made
    counts = made.last.counts if made.last is not None and made.choice.chosen else {}
    computed = sum(s.macs * (site_compute(counts[s.name]) if s.name in counts else 1.0) for s in subject.sites)
    work = computed / max(sum(s.macs for s in subject.sites), 1)
    return RoutedModel(made.module, replace(decision.plan, origin=None, capture=""), made.recipe.branches, work)
