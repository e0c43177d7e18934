"""Recording: each row's score and error at every routed site, as the module runs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, fx

from dendrofx.graph.block import BlockData, block_of
from dendrofx.graph.record import node_values
from dendrofx.report.given import Given
from dendrofx.report.replay import FARTHEST, Replay
from dendrofx.rewriting.cascade import cascade_parts
from dendrofx.rewriting.counted import on_live_rows, routed_nodes
from dendrofx.rewriting.recipe import CascadeRecipe, Recipe
from dendrofx.rewriting.tolerances import tolerances
from dendrofx.runtime.live import live_rows
from dendrofx.runtime.routing import split_rows
from dendrofx.runtime.scores import UNJUDGED
from dendrofx.search.choose import relative_error
from dendrofx.values.counts import CASCADE
from dendrofx.values.inputs import Inputs
from dendrofx.values.meta import RECIPE

MOST_ROWS = 100_000  # of all sites: what a page can hold


def score_nodes(module: fx.GraphModule) -> dict[str, fx.Node]:
    """Return, by site with a gate, the node with its rows' scores; of a cascade by its one name."""
    found = {site: cast(fx.Node, full.args[2]) for site, full in routed_nodes(module)}
    if cascade_parts(module) is not None:
        found = {CASCADE: next(n for n in module.graph.nodes if n.target is split_rows)}
    return {site: cast(fx.Node, split.args[0]) for site, split in found.items()}


@torch.no_grad()
def record(given: Given, light: Tensor, full: Tensor) -> Replay:
    """Return the recorded rows of a module that routes something.

    Args:
        given: the module and its samples.
        light: f64[N], deviation of each sample with every row light.
        full: the same with none.
    """
    source: Recipe | CascadeRecipe = given.module.meta[RECIPE]
    sites = tuple(score_nodes(given.module))
    parts: list[tuple[Tensor, ...]] = []
    first, rows = 0, 0
    for batch in given.batches:
        for number, (score, error, sample) in enumerate(_rows(given, batch, source)):
            rows += len(score)
            parts.append((score, error, sample + first, torch.full_like(sample, number)))
        first += batch.samples
    score, error, sample, site = (torch.cat(p) for p in zip(*parts, strict=True))
    exact = len(sites) == 1 and len(score) == given.samples
    share = _shares(score, error, sample, given.samples)
    kept = sample < given.samples if rows <= MOST_ROWS else sample < given.samples * MOST_ROWS // rows
    units, chosen = _units(given, source)
    count = int(sample[kept].max()) + 1
    return Replay(
        sites,
        units,
        _macs(given, source),
        score=score[kept].float().numpy(),
        share=share[kept].float().numpy(),
        site=site[kept].int().numpy(),
        sample=sample[kept].int().numpy(),
        light=light[:count].clamp_max(FARTHEST).float().numpy(),
        full=full[:count].clamp_max(FARTHEST).float().numpy(),
        exact=exact,
        chosen=chosen,
    )


def _rows(given: Given, batch: Inputs, source: Recipe | CascadeRecipe) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield score, error and sample of each row of a batch, site by site."""
    nodes = score_nodes(given.module)
    full = dict(routed_nodes(given.module))
    inputs = {site: cast(fx.Node, node.args[0]) for site, node in full.items()}
    values = node_values(given.module, [n.name for n in (*nodes.values(), *inputs.values())], batch)
    for site, node in nodes.items():
        score = values[node.name].reshape(-1)
        sample = _sample_of(given, batch, len(score), site in full and on_live_rows(full[site]))
        error = torch.ones_like(score)
        if isinstance(source, Recipe):
            found = next(s for s in source.sites if s.name == site)
            data = BlockData(block_of(source.captured, found.nodes), values[inputs[site].name])
            error = relative_error(data, source.branches[site].light) * data.outputs.norm(dim=1)
            error = error / max(float(source.weights.get(site) or 1.0), 1e-12) / data.outputs.norm(dim=1).mean()
        kept = slice(len(sample))  # behind them are rows that are there again for a kernel's sake
        yield score[kept], error[kept].clamp_min(1e-12), sample


def _sample_of(given: Given, batch: Inputs, rows: int, on_live: bool) -> Tensor:
    """Return the sample that each row belongs to, i64[rows], or of live rows i64[live rows]."""
    alive = given.alive(batch)
    if alive is not None and on_live:
        where = live_rows(alive, False)
        if rows == where.index.size(0):
            return where.sample[: where.live]
    return torch.arange(rows) * batch.samples // max(rows, 1)


def _shares(score: Tensor, error: Tensor, sample: Tensor, samples: int) -> Tensor:
    """Return each row's share of its sample's squared error; 0 for rows that never go light."""
    power = torch.where(score.isfinite(), error.double().square(), 0.0).nan_to_num(0.0, 0.0)
    total = torch.zeros(samples, dtype=torch.float64).index_add_(0, sample, power)
    return power / total[sample].clamp_min(1e-300)


def _macs(given: Given, source: Recipe | CascadeRecipe) -> tuple[int, ...]:
    if isinstance(source, CascadeRecipe):
        return (1,)
    macs = {s.name: s.macs for s in source.sites}
    return tuple(macs[site] for site in score_nodes(given.module))


def _units(given: Given, source: Recipe | CascadeRecipe) -> tuple[tuple[float, ...], float | None]:
    """Return each site's tolerance at factor 1, and the module's own factor; its own tolerances are the units where they can be."""
    sites, set_to = list(score_nodes(given.module)), tolerances(given.module)
    own = [float(set_to[site]) for site in sites]
    if len(own) == 1:  # the factor is then the tolerance itself
        return (1.0,), min(own[0], 2 * UNJUDGED)
    if all(0 < t < UNJUDGED for t in own):
        return tuple(own), 1.0
    weights = [1.0 if isinstance(source, CascadeRecipe) else source.weights[site] or 1.0 for site in sites]
    factors = [min(t / w, 2 * UNJUDGED) for t, w in zip(own, weights, strict=True)]
    same = all(math.isclose(f, factors[0], rel_tol=1e-3) for f in factors)
    return tuple(weights), factors[0] if same else None
