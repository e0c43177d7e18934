"""What `explain` returns: the ways of a batch's rows, site by site, as arrays and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tabulate import tabulate
from torch import Tensor

from dendrofx.compare.text import percent
from dendrofx.errors import InputError

MOST_ROWS = 16  # that are all printed
FEW = 5  # of many rows, the nearest to the tolerance, and the worst
NAME_WIDTH = 24  # what is left of 100 columns


@dataclass(frozen=True)
class SiteRoutes:
    """What the rows of one batch did at one site.

    Attributes:
        site: its name, as the plan has it.
        tolerance: in force.
        sample, place: i64[rows], the sample that a row belongs to, and which of its rows it is.
        hard: bool[rows], took the full branch; dead: bool[rows], was not computed.
        score: f32[rows], the gate's; NaN for dead rows, and where there is no gate.
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
            "-" if bool(self.score[i].isnan()) else f"{float(self.score[i]):.3g}",
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
