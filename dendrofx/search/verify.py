"""The last word of the decision: the whole rewritten model timed against the original, both scripted and frozen alike."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from dendrofx.gates.controls import NoGate
from dendrofx.graph.capture import capture
from dendrofx.graph.find_sites import find_sites
from dendrofx.machine.pace import HELPS, cpu_times, disturbed, pace
from dendrofx.machine.race import Race
from dendrofx.plan.times import ModelTimes
from dendrofx.rewriting.counted import graph_names
from dendrofx.rewriting.module import RoutedModule
from dendrofx.rewriting.rewrite import Branches, rewrite, without_gates
from dendrofx.rewriting.tolerances import set_tolerances
from dendrofx.search.profiler import AGAIN, BASELINE, ROUTED
from dendrofx.values.inputs import Inputs

MOST_BATCHES = 8  # different inputs that take turns


def judge(race: Race, batch: int) -> ModelTimes:
    """Return the figures of a race, in the original's favour."""
    found = pace(race, BASELINE, AGAIN, ROUTED)
    base = min(race.timings[name].p50 for name in (BASELINE, AGAIN))
    alone = cpu_times(race)
    ms = (alone if found.doubt else {}) or {name: t.p50 for name, t in race.timings.items()}
    both = race.threads > 1 and {BASELINE, AGAIN, ROUTED} <= alone.keys()
    return ModelTimes(
        batch,
        base,
        race.timings[ROUTED].p50,
        max(ms[BASELINE], ms[AGAIN]) / min(ms[BASELINE], ms[AGAIN]) - 1,
        disturbed(race, BASELINE, AGAIN, ROUTED),
        found.doubt,
        found.quickest,
        found.cpu,
        race.threads,
        min(alone[BASELINE], alone[AGAIN]) if both else None,
        alone[ROUTED] if both else None,
    )


def unreliable(times: Sequence[ModelTimes], min_speedup: float) -> bool:
    """Return whether nothing can be decided: no race that can be relied on was lost, and one cannot be."""
    losing = [t for t in times if not t.wins(min_speedup)]
    return bool(losing) and not any(t.pace.reliable for t in losing)


def lost(times: Sequence[ModelTimes], min_speedup: float, what: str = "the rewritten model") -> str | None:
    """Return why `what` did not win, at the batch size where it is furthest from it, or cannot be decided on; None where it won."""
    losing = [t for t in times if not t.wins(min_speedup)]
    if not losing:
        return None
    if unreliable(times, min_speedup):
        t = losing[0]
        return f"the timings are UNRELIABLE at batch {t.batch}, so nothing is decided on them: {t.pace} ({t.doubt}); {HELPS}"
    worst = min((t for t in losing if t.pace.reliable), key=lambda t: t.speedup)
    return f"{what} did not win: {worst.reason(min_speedup)}"


def site_alone(block: nn.Sequential, branches: Branches, tolerance: float) -> RoutedModule:
    """Return a site on its own: its block captured, and routed at a tolerance."""
    captured = capture(block.eval())
    site = find_sites(captured).expect(1)[0]
    module = rewrite(captured, [site], {site.name: branches})
    set_tolerances(module, dict.fromkeys(graph_names(module).values(), tolerance))
    light = isinstance(branches.gate_form, NoGate) and tolerance > 0
    return without_gates(module, [site.name]) if light else module


def timing_batches(given: Sequence[Inputs], size: int) -> list[Inputs]:
    """Return up to eight batches of `size` samples, cut from calibration batches and repeated where these are smaller."""
    made = []
    for batch in given:
        samples = batch.samples
        if samples == size:
            made.append(batch)
        elif samples > 1 or all(t.dim() > 0 and t.size(0) == 1 for t in batch.carrying):
            starts = range(0, max(samples - size, 0) + 1, max(size, 1))
            for start in list(starts)[: max(MOST_BATCHES // len(given), 1)]:
                made.append(batch.take((torch.arange(size) + start) % samples))
        if len(made) >= MOST_BATCHES:
            break
    return made
