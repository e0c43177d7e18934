"""From a captured model to a finished module: at block scope and at model scope, with a budget to certify and without."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import partial

from torch import fx

from dendrofx.errors import InputError
from dendrofx.finish import finish
from dendrofx.graph.find_sites import find_sites
from dendrofx.graph.sites import Selector
from dendrofx.guarantee.budget import Budget
from dendrofx.plan.entries import DeadRowsPlan
from dendrofx.plan.origin import Origin, here
from dendrofx.rewriting.dead_rows import drop_dead_rows
from dendrofx.rewriting.module import RoutedModule
from dendrofx.search.block_front import BlockFront
from dendrofx.search.cascade.finish import finish_cascade
from dendrofx.search.cascade.models import Models
from dendrofx.search.cascade.run import Cascades
from dendrofx.search.certify import certified, warn_of_duplicates
from dendrofx.search.explore import Options
from dendrofx.search.front import Setting
from dendrofx.search.pipeline import Pipeline
from dendrofx.search.stopwatch import Timer
from dendrofx.search.verify import lost
from dendrofx.values.calibration import Calibration
from dendrofx.values.inputs import Inputs
from dendrofx.values.meta import FRONT


@dataclass(frozen=True)
class Asked:
    """What else the caller asked for.

    Attributes:
        dead_rows: the mask, as `transform` takes it.
        sites: which sites may be routed.
        budget: to certify, None without.
        model, data: fingerprints.
    """

    dead_rows: str | None
    sites: Selector
    budget: Budget | None
    model: str
    data: str | None

    def origin(self, options: Options, sizes: tuple[int, ...]) -> Origin:
        """Of the plan that is made now."""
        return here(self.model, self.data, options.seed, sizes, options.min_speedup)


def decide_block(
    captured: fx.GraphModule,
    data: Calibration | None,
    options: Options,
    timer: Timer | None,
    example: Inputs | None,
    asked: Asked,
) -> RoutedModule:
    """Route rows of blocks."""
    run, module, dead = _piped(captured, asked, data, options, timer, example)
    origin = asked.origin(options, run.tuning.sizes)
    if asked.budget is None or data is None:
        return finish(module, run, example, origin, dead)
    warn_of_duplicates(data.test)
    front = BlockFront(run, asked.budget)
    found = front.chosen() if run.chosen else "no site is routed: nothing pays"
    if not isinstance(found, str) and options.decide and timer is not None:
        run.model_times = run.time_model(found.make(), timer)
        if (reason := lost(run.model_times, options.min_speedup, "within the budget the rewritten model")) is not None:
            found = reason
    if isinstance(found, str):
        for site in [s for s in run.sites if s.name in run.chosen]:
            run.refuse(site, f"not certified: {found}")
        module = run.calibrate()
        made = finish(module, run, example, origin, dead, budget=str(asked.budget), refusal=found)
    else:
        made = _block_setting(found, front, asked, example, origin, dead)
    made.meta[FRONT] = [
        replace(s, make=partial(_block_setting, s, front, asked, example, origin, dead)) for s in front.front
    ]
    return made


def _block_setting(
    setting: Setting,
    front: BlockFront,
    asked: Asked,
    example: Inputs | None,
    origin: Origin,
    dead: DeadRowsPlan | None,
) -> RoutedModule:
    """The module of an accepted setting, with a plan and a certificate of its own."""
    assert asked.budget is not None
    own = copy.copy(front)
    own.run = copy.copy(front.run)
    module = own.use(setting)
    shown = certified(module, front.front, setting, asked.budget, own.covered, own.test, asked.model)
    return finish(module, own.run, example, origin, dead, budget=str(asked.budget), certificate=shown)


def _piped(
    captured: fx.GraphModule,
    asked: Asked,
    data: Calibration | None,
    options: Options,
    timer: Timer | None,
    example: Inputs | None,
) -> tuple[Pipeline, RoutedModule, DeadRowsPlan | None]:
    """The pipeline's result; where live rows do not win on the whole model, that of the graph with all rows."""
    if asked.dead_rows is None:
        run = Pipeline(captured, find_sites(captured).select(asked.sites), data, options, timer, example)
        return run, run.run(), None
    live, dead = _live(captured, asked.dead_rows, data, example)
    run = Pipeline(live, find_sites(live).select(asked.sites), data, options, timer, example, original=captured)
    module = run.run()
    if run.lost is None:
        return run, module, dead
    refused = DeadRowsPlan(asked.dead_rows, "refused", run.lost)
    run = Pipeline(captured, find_sites(captured).select(asked.sites), data, options, timer, example)
    return run, run.run(), refused


def _live(
    captured: fx.GraphModule, dead_rows: str, data: Calibration | None, example: Inputs | None
) -> tuple[fx.GraphModule, DeadRowsPlan]:
    """The graph on live rows."""
    assert example is not None
    live, report = drop_dead_rows(captured, dead_rows, example)
    if data is not None and not report.takes([*data.fit, *data.gate, *data.choose, *data.walk, *data.test]):
        raise InputError(
            f"dead_rows={dead_rows!r}: the model ignores padding on the {report.side} alone, and calibration holds samples with"
            " padding elsewhere: leave them out"
        )
    share = None if data is None else data.live_share(report.mask)
    return live, DeadRowsPlan(dead_rows, "live", report.describe(share))


def decide_model(
    captured: fx.GraphModule,
    data: Calibration | None,
    options: Options,
    timer: Timer | None,
    example: Inputs | None,
    asked: Asked,
) -> RoutedModule:
    """Route samples between a light model and the original."""
    assert data is not None
    assert asked.budget is not None
    warn_of_duplicates(data.test)
    base, dead = captured, None
    if asked.dead_rows is not None:
        base, dead = _live(captured, asked.dead_rows, data, example)
    models = Models(captured, base, find_sites(base).select(asked.sites), data, options, asked.budget, timer)
    run = Cascades(models, options, asked.budget, timer)
    best = run.run()
    origin = asked.origin(options, models.sizes)
    if best is None:
        made = finish_cascade(None, run, example, origin, dead, None)
    else:
        made = _model_setting(best, run, asked, example, origin, dead)
    made.meta[FRONT] = [
        replace(s, make=partial(_model_setting, s, run, asked, example, origin, dead)) for s in run.front
    ]
    return made


def _model_setting(
    setting: Setting,
    run: Cascades,
    asked: Asked,
    example: Inputs | None,
    origin: Origin,
    dead: DeadRowsPlan | None,
) -> RoutedModule:
    """The same at model scope."""
    assert asked.budget is not None
    own = copy.copy(run)
    own.plan = own.planned(setting)
    module = setting.make()
    models = run.models
    shown = certified(module, run.front, setting, asked.budget, models.covered, models.data.test, asked.model)
    return finish_cascade(module, own, example, origin, dead, shown)
