"""Controls: a routed module again, with other gates, to measure its own gates against.

always-full     its own gates at tolerance 0: what routing costs where it saves nothing
always-light    no gates: what the light branches do alone
random          the same share of rows to full, chosen by chance
oracle          the same share, chosen by the true error: what no gate can beat
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from dendrofx.gates import AlwaysLight, GateForm, OracleGate, RandomGate, SiteRows
from dendrofx.graph.block import BlockData, block_of
from dendrofx.graph.record import node_values, record_rows
from dendrofx.rewriting.cascade import NAME, cascade_parts
from dendrofx.rewriting.counted import graph_names
from dendrofx.rewriting.module import RoutedModule
from dendrofx.rewriting.recipe import CascadeRecipe, Recipe
from dendrofx.rewriting.rewrite import rewrite
from dendrofx.rewriting.tolerances import set_tolerances, tolerances
from dendrofx.runtime.control_scores import ConstantScore, KnownScore, RandomModelScore
from dendrofx.runtime.model_scores import flat_rows
from dendrofx.search.choose import relative_error, scores
from dendrofx.values.counts import Counts, of_sites, site_activity
from dendrofx.values.drop_in import graph_level
from dendrofx.values.inputs import Inputs
from dendrofx.values.measure import deviation
from dendrofx.values.meta import CALL, PLAN, RECIPE
from dendrofx.values.outputs import flatten


def recipe(module: RoutedModule) -> Recipe:
    """Return what `module` was made from."""
    found: Recipe = module.meta[RECIPE]
    return found


def always_full(module: RoutedModule) -> RoutedModule:
    """Return it with its own gates at tolerance 0."""
    if cascade_parts(module) is None:
        return recipe(module).build()  # with the full branches that a site of `NoGate` goes without
    same = copy.deepcopy(module)
    set_tolerances(same, dict.fromkeys(tolerances(same), 0.0))
    return same


def always_light(module: RoutedModule) -> RoutedModule:
    """Return it with every row light."""
    if cascade_parts(module) is not None:
        return cascade_with(module, ConstantScore(0.0))
    return with_gates(module, {s.name: AlwaysLight() for s in recipe(module).sites})


def alone(module: RoutedModule) -> RoutedModule:
    """Return its light branches on every row, with neither gates nor full branches: of a cascade its light model."""
    if cascade_parts(module) is None:
        return always_light(module)
    source: CascadeRecipe = module.meta[RECIPE]
    light = copy.copy(source.light)
    light.meta.update({key: module.meta[key] for key in (CALL, PLAN) if key in module.meta})
    return light


def at_random(module: RoutedModule, counts: Counts, seed: int) -> RoutedModule:
    """Send each site's share of hard rows in `counts` to its full branch, chosen by a hash of the row."""
    if cascade_parts(module) is not None:
        return cascade_with(module, RandomModelScore(site_activity(counts[NAME]), seed))
    shares = {site: site_activity(c) for site, c in of_sites(counts).items()}
    return with_gates(module, {site: RandomGate(share, seed) for site, share in shares.items()})


def cascade_with(module: RoutedModule, gate: nn.Module) -> RoutedModule:
    """Return the same light and full models with another gate, its tolerance 1."""
    source: CascadeRecipe = module.meta[RECIPE]
    return source.with_gate(gate, {NAME: 1.0})


@torch.no_grad()
def by_oracle(module: RoutedModule, counts: Counts, batch: Inputs) -> RoutedModule:
    """Send each site's share of hard rows in `counts` to its full branch, those of `batch` with the largest true error.

    Sites are set in graph order: what a site sees depends on the routes before it.
    """
    if cascade_parts(module) is not None:
        return _cascade_by_oracle(module, site_activity(counts[NAME]), batch)
    made = with_gates(module, {s.name: OracleGate() for s in recipe(module).sites})
    for site, name in graph_names(made).items():
        gate = f"{name}_gate"
        errors = node_values(made, [gate], batch)[gate].double()
        share = site_activity(counts[site])
        cut = float(torch.quantile(errors, 1 - share, interpolation="lower")) * (1 + 1e-6) if share < 1 else 0.0
        set_tolerances(made, {name: cut})
    return made


def _cascade_by_oracle(module: RoutedModule, share: float, batch: Inputs) -> RoutedModule:
    """Recompute the samples of `batch` whose light outputs deviate most."""
    source: CascadeRecipe = module.meta[RECIPE]
    light, full = (
        flat_rows(flatten(batch.call(graph_level(m)))[0][source.decision])
        for m in (source.light, source.whole or source.full)
    )
    errors = deviation(full, light)
    cut = float(torch.quantile(errors, 1 - share, interpolation="lower")) * (1 + 1e-6) if share < 1 else 0.0
    made = cascade_with(module, KnownScore(light, errors.float()))
    set_tolerances(made, {NAME: cut})
    return made


def with_gates(module: RoutedModule, gates: Mapping[str, GateForm]) -> RoutedModule:
    """Return the same light and full branches with other gates, every tolerance 1."""
    source = recipe(module)
    branches = {}
    for site in source.sites:
        old, form = source.branches[site.name], gates[site.name]
        site_rows = SiteRows(BlockData(block_of(source.captured, site.nodes)), old.light)
        branches[site.name] = replace(old, gate_form=form, gate=form.fit(site_rows))
    made = rewrite(source.captured, source.sites, branches)
    set_tolerances(made, dict.fromkeys(graph_names(made).values(), 1.0))
    return made


def site_errors(module: RoutedModule, batches: list[Inputs], seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Return, per routed site, its gate's scores and its light branch's true errors (f32[N] each) on rows of `batches`."""
    source = recipe(module)
    rows = record_rows(source.captured, source.sites, batches, seed).rows
    found = {}
    for site in source.sites:
        data = BlockData(block_of(source.captured, site.nodes), rows[site.name])
        branches = source.branches[site.name]
        score = scores(branches.gate_form, branches.gate, branches.light, rows[site.name])
        found[site.name] = (score, relative_error(data, branches.light))
    return found
