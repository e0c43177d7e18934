"""Explaining one batch: the way that each of its rows takes at every routed site, and what that costs it.

    site      rows  light  full  dead  tolerance  mean deviation  largest
    fc1..fc2   332    320    12     0       0.05           0.4 %    1.2 %

Beside it the rows whose way hangs by a thread, and those that the light branch serves worst.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from dendrofx.compare.explanation import Explanation, SiteRoutes
from dendrofx.errors import InputError
from dendrofx.graph.block import BlockData, block_of
from dendrofx.graph.record import node_values
from dendrofx.rewriting.cascade import NAME, cascade_parts
from dendrofx.rewriting.counted import on_live_rows, routed_nodes, ungated_nodes
from dendrofx.rewriting.module import RoutedModule
from dendrofx.rewriting.recipe import CascadeRecipe, Recipe
from dendrofx.rewriting.tolerances import tolerances
from dendrofx.runtime.live import live_rows
from dendrofx.runtime.model_scores import flat_rows
from dendrofx.search.choose import relative_error
from dendrofx.values.drop_in import call_form, graph_level
from dendrofx.values.inputs import Inputs
from dendrofx.values.measure import deviation
from dendrofx.values.meta import RECIPE
from dendrofx.values.outputs import flatten


@torch.no_grad()
def explain(module: nn.Module, batch: Any) -> Explanation:  # noqa: ANN401  (a batch as users write it)
    """Say of each row of a batch which way it takes at every routed site, by what score, and how far its light branch is off.

    Args:
        module: what `transform` returned; its tolerances as they are now count.
        batch: one call's inputs, as `transform` takes them: a tensor, a tuple, or a dict of tensors.

    Returns:
        An object that prints as a table, with the arrays as attributes.

    Raises:
        InputError: another module, or one that does not keep the original (it was loaded from a file).

    Example:
        >>> found = dendrofx.explain(routed, batches[0])
        >>> print(found)
        >>> found["fc1..fc2"].score[found["fc1..fc2"].hard]
    """
    if not isinstance(module, RoutedModule) or RECIPE not in module.meta:
        raise InputError(
            f"explain needs the module that transform returned, which holds the original, got a {type(module).__name__}"
        )
    given, form = Inputs.of(batch), call_form(module)
    inputs = given if form is None else form.plain(given)
    if cascade_parts(module) is not None:
        return Explanation((_cascade(module, inputs),), unit="sample")
    sites = _sites(module, inputs)
    return Explanation(tuple(sites), len(module.plan.sites) - len(sites))


def _sites(module: RoutedModule, inputs: Inputs) -> list[SiteRoutes]:
    """Return what rows do at each site of a module with routed blocks."""
    recipe: Recipe = module.meta[RECIPE]
    found = {site: (full.args[0], cast(fx.Node, full.args[2]).args[0], full) for site, full in routed_nodes(module)}
    found |= {site: (light.args[0], None, light) for site, light in ungated_nodes(module)}
    live = next((n for n in module.graph.nodes if n.target is live_rows), None)
    wanted = [n for rows, score, _ in found.values() for n in (rows, score)] + ([] if live is None else [live.args[0]])
    values = node_values(module, [n.name for n in wanted if isinstance(n, fx.Node)], inputs)
    limits, made = tolerances(module), []
    for site in recipe.sites:
        rows, score, full = found[site.name]
        reached = values[cast(fx.Node, rows).name]
        scores = None if score is None else values[cast(fx.Node, score).name]
        data = BlockData(block_of(recipe.captured, site.nodes), reached)
        error = relative_error(data, recipe.branches[site.name].light)
        index, count = None, len(reached)
        if live is not None and on_live_rows(full):
            where = live_rows(values[cast(fx.Node, live.args[0]).name], *live.args[1:])
            index, count = where.index[: where.live], where.batch * where.tokens
        made.append(_routes(site.name, float(limits[site.name]), scores, error, count, inputs.samples, index))
    return made


def _routes(
    site: str, tolerance: float, score: Tensor | None, error: Tensor, count: int, samples: int, index: Tensor | None
) -> SiteRoutes:
    """Return the routes of `count` rows, of which those at `index`, or all, have a score; the others are dead.

    Without a gate there is no score, and every row that lives is light.
    """
    index = torch.arange(count) if index is None else index
    scores, errors = torch.full((count,), torch.nan), torch.full((count,), torch.nan, dtype=torch.float64)
    errors[index] = error[: len(index)].double()
    if score is not None:
        scores[index] = score[: len(index)].float()
    dead = torch.ones(count, dtype=torch.bool)
    dead[index] = False
    each = max(count // max(samples, 1), 1)
    rows = torch.arange(count)
    hard = ~(scores < tolerance) & ~dead & (score is not None)
    return SiteRoutes(site, tolerance, rows // each, rows % each, hard, dead, scores, errors)


def _cascade(module: RoutedModule, inputs: Inputs) -> SiteRoutes:
    """Return what samples do in a cascade."""
    recipe: CascadeRecipe = module.meta[RECIPE]
    split = next(n for n in module.graph.nodes if n.name == "cascade_split")
    score = node_values(module, [split.args[0].name], inputs)[split.args[0].name]
    light, full = (
        flat_rows(flatten(inputs.call(graph_level(m)))[0][recipe.decision])
        for m in (recipe.light, recipe.whole or recipe.full)
    )
    limit = float(tolerances(module)[NAME])
    return _routes(NAME, limit, score, deviation(full, light), len(score), len(score), None)
