"""Explaining one batch: the way that each of its rows takes at every routed site, and what that costs it.

    site      rows  light  full  dead  tolerance  mean deviation  largest
    fc1..fc2   332    320    12     0       0.05           0.4 %    1.2 %

Beside it the rows whose way hangs by a thread, and those that the light branch serves worst.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from tabulate import tabulate
from torch import Tensor, fx, nn

from dendrofx.compare.text import percent
from dendrofx.errors import InputError
from dendrofx.graph.block import BlockData, block_of
from dendrofx.graph.record import Recorder, positional
from dendrofx.rewriting.cascade import NAME, cascade_parts
from dendrofx.rewriting.counted import routed_nodes
from dendrofx.rewriting.module import RoutedModule
from dendrofx.rewriting.recipe import CascadeRecipe, Recipe
from dendrofx.rewriting.tolerances import tolerances
from dendrofx.runtime.live import live_rows
from dendrofx.runtime.model_scores import flat_rows
from dendrofx.search.choose import relative_error
from dendrofx.values.drop_in import call_form, graph_level
from dendrofx.values.inputs import Inputs
from dendrofx.values.measure import deviation
from dendrofx.values.meta import LIVE, RECIPE
from dendrofx.values.outputs import flatten

MOST_ROWS = 16  # that are all printed
FEW = 5  # of many rows, the nearest to the tolerance, and the worst
NAME_WIDTH = 36


@dataclass(frozen=True)
class SiteRoutes:
    """What the rows of one batch did at one site.

    Attributes:
        site: its name, as the plan has it.
        tolerance: in force.
        sample, place: i64[rows], the sample that a row belongs to, and which of its rows it is.
        hard: bool[rows], took the full branch; dead: bool[rows], was not computed.
        score: f32[rows], the gate's; NaN for dead rows.
        deviation: f64[rows], relative L2 distance of the light branch's output from the block's on what reached the site, also
            of rows that took the full branch; at `scope="model"` of the decision output. NaN for dead rows.
    """

    site: str
    tolerance: float
    sample: Tensor
    place: Tensor
    hard: Tensor
    dead: Tensor
    score: Tensor
    deviation: Tensor

    @property
    def light(self) -> Tensor:
        """bool[rows], took the light branch."""
        return ~self.hard & ~self.dead

    @property
    def ways(self) -> list[str]:
        """Each row's way: "light", "full" or "dead"."""
        pairs = zip(self.hard.tolist(), self.dead.tolist(), strict=True)
        return ["dead" if dead else "full" if hard else "light" for hard, dead in pairs]

    @property
    def nearness(self) -> Tensor:
        """f32[rows], distance of the score from the tolerance, relative to that; infinity where there is none."""
        far = ((self.score - self.tolerance) / self.tolerance).abs()
        return torch.where(far.isnan(), torch.full_like(far, torch.inf), far)

    def row(self, i: int) -> list[str]:
        """Return one row as a line of a table."""
        place = f"{int(self.sample[i])}" + (f", {int(self.place[i])}" if bool(self.place.any()) else "")
        if bool(self.dead[i]):
            return [self.site, place, "dead", "-", f"{self.tolerance:.3g}", "-"]
        figures = [
            f"{float(self.score[i]):.3g}",
            f"{self.tolerance:.3g}",
            f"{percent(float(self.deviation[i]), '.2g')} %",
        ]
        return [self.site, place, self.ways[i], *figures]

    def summary(self) -> list[str]:
        """Return the site as a line of a table."""
        light = self.deviation[self.light]
        errors = [f"{percent(float(v), '.2g')} %" for v in (light.mean(), light.max())] if len(light) else ["-", "-"]
        counts = [str(len(self.hard)), *(str(int(x.sum())) for x in (self.light, self.hard, self.dead))]
        return [self.site, *counts, f"{self.tolerance:.3g}", *errors]


@dataclass(frozen=True)
class Explanation:
    """What `explain` found; printed within 100 columns.

    Attributes:
        sites: the routed sites in graph order; the whole model of a cascade is one, `model`. Empty where nothing is routed.
        refused: sites that are not routed.
        unit: "row" or "sample".
    """

    sites: tuple[SiteRoutes, ...]
    refused: int = 0
    unit: str = "row"

    def __getitem__(self, site: str) -> SiteRoutes:
        """Return a site by its name."""
        for found in self.sites:
            if found.site == site:
                return found
        raise InputError(f"{site!r} is not routed here: {', '.join(s.site for s in self.sites) or 'nothing is'}")

    def __str__(self) -> str:
        if not self.sites:
            return f"nothing is routed: every row takes the original block ({self.refused} sites refused: print(module.plan))"
        heads = ["site", f"{self.unit}s", "light", "full", "dead", "tolerance", "mean deviation", "largest"]
        lines = [
            _table([s.summary() for s in self.sites], heads),
            "deviation: of the light branch from the block; mean and largest of what took it",
        ]
        rows = [(s, i) for s in self.sites for i in range(len(s.hard))]
        heads = [
            "site",
            self.unit if self.unit == "sample" else "sample, row",
            "way",
            "score",
            "tolerance",
            "light's deviation",
        ]
        if not any(bool(s.place.any()) for s in self.sites):
            heads[1] = self.unit
        if len(rows) <= MOST_ROWS:
            return "\n".join([*lines, "", _table([s.row(i) for s, i in rows], heads)])
        near, worst = _nearest(self.sites), _worst(self.sites)
        parts = [(f"nearest to the tolerance, of {len(rows)}:", near), ("light with the largest deviation:", worst)]
        return "\n".join([*lines, *(x for head, found in parts if found for x in ("", head, _table(found, heads)))])

    def __repr__(self) -> str:
        return f"<Explanation: {', '.join(s.site for s in self.sites) or 'nothing is routed'}>"


def _table(rows: Sequence[Sequence[str]], heads: Sequence[str]) -> str:
    align = ("left", *["right"] * (len(heads) - 1))
    widths = [NAME_WIDTH, *[None] * (len(heads) - 1)]
    return tabulate(rows, heads, "plain", disable_numparse=True, colalign=align, maxcolwidths=widths)


def _nearest(sites: Sequence[SiteRoutes]) -> list[list[str]]:
    return _first(sites, [s.nearness.double() for s in sites])


def _worst(sites: Sequence[SiteRoutes]) -> list[list[str]]:
    return _first(sites, [torch.where(s.light, -s.deviation, torch.inf) for s in sites])


def _first(sites: Sequence[SiteRoutes], by: Sequence[Tensor]) -> list[list[str]]:
    """Return the rows of all sites that are least by some figure, as lines of a table; those of infinity are none."""
    pairs = [
        (v, s, i) for s, values in zip(sites, by, strict=True) for i, v in enumerate(values.tolist()) if v < torch.inf
    ]
    return [s.row(i) for _, s, i in sorted(pairs, key=lambda p: p[0])[:FEW]]


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
    live = next((n for n in module.graph.nodes if n.target is live_rows), None)
    wanted = [n for rows, score, _ in found.values() for n in (rows, score)] + ([] if live is None else [live.args[0]])
    run = Recorder(module, {cast(fx.Node, n).name for n in wanted})
    run.run(*positional(module, inputs))
    limits, made = tolerances(module), []
    for site in recipe.sites:
        rows, score, full = found[site.name]
        reached, scores = (run.values[cast(fx.Node, n).name] for n in (rows, score))
        data = BlockData(block_of(recipe.captured, site.nodes), reached)
        error = relative_error(data, recipe.branches[site.name].light)
        on_live = live is not None and any(LIVE in n.meta for n in full.users)
        index, count = None, len(reached)
        if live is not None and on_live:
            where = live_rows(run.values[cast(fx.Node, live.args[0]).name], *live.args[1:])
            index, count = where.index[: where.live], where.batch * where.tokens
        made.append(_routes(site.name, float(limits[site.name]), scores, error, count, inputs.samples, index))
    return made


def _routes(
    site: str, tolerance: float, score: Tensor, error: Tensor, count: int, samples: int, index: Tensor | None
) -> SiteRoutes:
    """Return the routes of `count` rows, of which those at `index`, or all, have a score; the others are dead."""
    index = torch.arange(count) if index is None else index
    scores, errors = torch.full((count,), torch.nan), torch.full((count,), torch.nan, dtype=torch.float64)
    scores[index], errors[index] = score[: len(index)].float(), error[: len(index)].double()
    dead = torch.ones(count, dtype=torch.bool)
    dead[index] = False
    each = max(count // max(samples, 1), 1)
    rows = torch.arange(count)
    hard = ~(scores < tolerance) & ~dead
    return SiteRoutes(site, tolerance, rows // each, rows % each, hard, dead, scores, errors)


def _cascade(module: RoutedModule, inputs: Inputs) -> SiteRoutes:
    """Return what samples do in a cascade."""
    recipe: CascadeRecipe = module.meta[RECIPE]
    split = next(n for n in module.graph.nodes if n.name == "cascade_split")
    run = Recorder(module, {split.args[0].name})
    run.run(*positional(module, inputs))
    score = run.values[split.args[0].name]
    light, full = (
        flat_rows(flatten(inputs.call(graph_level(m)))[0][recipe.decision]) for m in (recipe.light, recipe.full)
    )
    limit = float(tolerances(module)[NAME])
    return _routes(NAME, limit, score, deviation(full, light), len(score), len(score), None)
