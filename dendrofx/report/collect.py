"""Collecting: all that a report says, measured once, as frozen data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dendrofx.compare.points import CHOSEN, Sweep
from dendrofx.compare.quality import Quality
from dendrofx.machine.capability import describe_machine
from dendrofx.plan.plan import Plan
from dendrofx.report.blocks import Fold, block_times, blocks, fold
from dendrofx.report.given import Given
from dendrofx.report.nodes import node_times
from dendrofx.report.record import record, score_nodes
from dendrofx.report.replay import Replay
from dendrofx.report.sweep import ALL_LIGHT, NONE_LIGHT, ends, measure, quality
from dendrofx.rewriting.tolerances import tolerances
from dendrofx.values.counts import CASCADE, site_activity
from dendrofx.version import VERSION

MOST_WORST = 12
BRANCHES = ("gate", "light", "full")
NODE_SHARE = 0.2  # of the time for races


@dataclass(frozen=True)
class WorstSample:
    """One of the samples that deviate most.

    Attributes:
        index: among the caller's samples, from 0.
        ways: by site, hard rows, rows, and the largest score of them; empty where the sample's rows were not recorded.
    """

    index: int
    deviation: float
    ways: tuple[tuple[int, int, float], ...]


@dataclass(frozen=True)
class SiteTimes:
    """Milliseconds of one routed site, node by node: its block in the original, and its branches."""

    block: float | None
    gate: float
    light: float
    full: float


@dataclass(frozen=True)
class Collected:
    """What a report shows.

    Attributes:
        model: class name of the original.
        plan: of the module.
        samples: that were run; left_out: that were given besides; batch: samples of a call.
        output: the one that deviations are of, where there are several; empty elsewhere.
        quality: of the module as it is; its loss is the mean in the metric of the certificate, None without one.
        replay: None where nothing has a gate; sweep: None where nothing can be compared.
        is_model: times and outputs are compared with the model that the caller gave.
        before, after: the two graphs; before is None where the original is not there.
        times: by routed site.
        worst: samples, those that deviate most first.
        tolerances: by site, in the order of the replay.
        machine: CPU and versions.
    """

    model: str
    plan: Plan
    samples: int
    left_out: int
    batch: int
    threads: int
    output: str
    quality: Quality
    replay: Replay | None
    sweep: Sweep | None
    is_model: bool
    before: list[Fold] | None
    after: list[Fold]
    times: Mapping[str, SiteTimes]
    worst: list[WorstSample]
    machine: Mapping[str, str]
    seed: int

    @property
    def routed(self) -> bool:
        """Whether rows or samples are routed."""
        return self.plan.rewrites

    @property
    def shares(self) -> dict[str, tuple[int, int]]:
        """By routed site, rows that went full and all rows; of a cascade its samples."""
        return {site: (c["hard_rows"], c["rows"]) for site, c in self.quality.by_site.items()}


def collect(given: Given, seconds: float, seed: int) -> Collected:
    """Run and time what a report shows.

    Args:
        given: the module, its original and samples.
        seconds: rough time for all timing.
        seed: of every random choice.
    """
    module, chosen = given.module, quality(given, given.module)
    ran = {CHOSEN: chosen, **(ends(given) if score_nodes(module) else {})}
    replay = record(given, far(ran[ALL_LIGHT]), far(ran[NONE_LIGHT])) if score_nodes(module) else None
    races = seconds * (1 - NODE_SHARE)
    compares = replay is not None or given.compares
    measured = measure(given, replay, ran, races, seed) if compares else None
    before, after, times = _graphs(given, chosen, seconds * NODE_SHARE, seed)
    return Collected(
        type(module).__name__,
        module.plan,
        given.samples,
        given.left_out,
        given.timed[0].samples,
        torch.get_num_threads(),
        given.output,
        chosen,
        replay,
        measured,
        given.is_model,
        before,
        after,
        times,
        _worst(given, chosen, replay),
        {**describe_machine(), "dendrofx": VERSION},
        seed,
    )


def far(found: Quality) -> Tensor:
    """Return f64[N], the deviation of each sample."""
    assert found.far is not None
    return found.far[:, 0]


def _graphs(
    given: Given, chosen: Quality, seconds: float, seed: int
) -> tuple[list[Fold] | None, list[Fold], dict[str, SiteTimes]]:
    """Return the graph before, where it is there, and after, both as folded blocks, and the times of routed sites."""
    graphs = {"after": given.module, **({"before": given.original} if given.compares else {})}
    ms = node_times(graphs, given.timed, seconds, seed)
    hard = {site: site_activity(c) for site, c in chosen.by_site.items()}
    found = {name: blocks(gm, ms[name], hard) for name, gm in graphs.items()}
    originals = block_times(found.get("before", []))
    if "before" in found:
        originals[CASCADE] = sum(b.ms for b in found["before"])
    routed = [b for b in found["after"] if b.routed]
    times = {b.site: SiteTimes(originals.get(b.site), *(b.parts.get(p, 0.0) for p in BRANCHES)) for b in routed}
    return fold(found["before"]) if "before" in found else None, fold(found["after"]), times


def _worst(given: Given, chosen: Quality, replay: Replay | None) -> list[WorstSample]:
    order = far(chosen).argsort(descending=True, stable=True)[:MOST_WORST].tolist()
    set_to = {} if replay is None else tolerances(given.module)
    limits = [] if replay is None else [float(set_to[site]) for site in replay.sites]
    return [WorstSample(i, float(far(chosen)[i]), _ways(i, replay, limits)) for i in order]


def _ways(sample: int, replay: Replay | None, limits: Sequence[float]) -> tuple[tuple[int, int, float], ...]:
    """Return what became of a sample's rows at each site."""
    if replay is None or sample >= len(replay.full):
        return ()
    found = []
    for number, limit in enumerate(limits):
        own = (replay.sample == sample) & (replay.site == number)
        score = replay.score[
            own & ((replay.share > 0) | ~np.isfinite(replay.score))
        ]  # without rows that are there again
        hard = int((~(score < np.float32(limit))).sum())
        found.append((hard, len(score), float(score.max()) if len(score) else 0.0))
    return tuple(found)
