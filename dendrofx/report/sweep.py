"""The settings that a report runs and times: the module as it is, and a few of those that its slider passes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from dendrofx.compare.points import CHOSEN, NAMES, Setting, Sweep, at, everywhere, sweep
from dendrofx.compare.quality import Quality, quality_of, run
from dendrofx.compare.turns import time_in_doubt, time_in_turns
from dendrofx.guarantee.losses import losses_of
from dendrofx.lowering.script import script
from dendrofx.machine.progress import progress
from dendrofx.machine.race import Race
from dendrofx.report.given import Given
from dendrofx.report.replay import Replay
from dendrofx.runtime.scores import UNJUDGED
from dendrofx.values.measure import largest_mean

ACTIVITIES = (0.5, 0.2, 0.05, 0.01)  # of the points between none and all light
NONE_LIGHT, ALL_LIGHT = "every row full", "every row light"


def quality(given: Given, module: nn.Module) -> Quality:
    """Return the quality of a module on all samples: deviations in the output that the report is about, losses in all."""
    output, counts = run(module, given.batches, given.covered, hasattr(module, "forward_counted"))
    place = given.place
    found = quality_of([given.reference[place]], [output[place]], given.covered.covered[place : place + 1], counts)
    shown = given.module.plan.certificate
    budget = None if shown is None else shown.budget
    return found if budget is None else replace(found, loss=largest_mean(losses_of(budget, given.reference, output)))


def ends(given: Given) -> dict[str, Quality]:
    """Return the quality of the module with no row light, and with every one."""
    values = {NONE_LIGHT: 0.0, ALL_LIGHT: 2 * UNJUDGED}
    return {name: quality(given, everywhere(given.module, value)) for name, value in values.items()}


def measure(given: Given, replay: Replay | None, ran: Mapping[str, Quality], seconds: float, seed: int) -> Sweep:
    """Run and time the module at its own tolerances, and where rows are routed at a few others; fewest light rows first.

    Args:
        given: the module, its original and samples.
        replay: of its recorded rows; None where nothing has a gate.
        ran: quality of the module as it is, and of other settings that were run already, by name.
        seconds: rough time for timing.
        seed: of the order of turns and of the random choice.
    """

    def timed(modules: Mapping[str, nn.Module]) -> Race:
        return time_in_doubt(modules, NAMES, lambda some: time_in_turns(some, given.timed, seconds, seed))

    factor, chosen = None if replay is None else replay.chosen, ran[CHOSEN]
    settings = [Setting(CHOSEN, factor, {}, 0 < chosen.hard < chosen.rows, chosen)]
    settings += [] if replay is None else _others(given, replay, ran)
    original = script(given.original, freeze=True)
    swept = sweep(settings, given.module, original, lambda m: quality(given, m), timed, seed)
    return replace(swept, points=sorted(swept.points, key=lambda p: (-(p.quality.activity or 0.0), p.quality.mean)))


def _others(given: Given, replay: Replay, ran: Mapping[str, Quality]) -> list[Setting]:
    """Return none light, all light, and shares of the rows full; one for each number of rows, and none for the module's own."""
    seen = set() if replay.chosen is None else {replay.at(replay.chosen).hard}
    between = {f"about {100 * share:g} % of rows full": replay.factor_at(share) for share in ACTIVITIES}
    found = []
    factors = {NONE_LIGHT: 0.0, ALL_LIGHT: replay.all_light, **between}
    for name, factor in progress(factors.items(), "running settings", "setting"):
        if (hard := replay.at(factor).hard) in seen or (name in between and factor >= UNJUDGED):
            continue
        seen.add(hard)
        values = replay.tolerances(factor)
        found.append(Setting(name, factor, values, quality=ran.get(name) or quality(given, at(given.module, values))))
    return found
