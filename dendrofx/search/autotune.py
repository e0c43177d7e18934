"""Tuning: what each site's candidates cost, timed where there is a timer, counted where there is none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx, nn

from dendrofx.graph.block import block_of
from dendrofx.graph.sites import Site
from dendrofx.light import Prepacked, Transposed
from dendrofx.machine.memory import return_free_memory
from dendrofx.machine.progress import progress
from dendrofx.request import Request
from dendrofx.search.choose import Candidate
from dendrofx.search.cost import BLOCK
from dendrofx.search.estimates import CostEstimate, ExactForm, Measured, counted, regions_beyond
from dendrofx.search.explored import Explored
from dendrofx.search.timer import Timer

# Shares of the budget at which candidates are worth timing: sites need not share evenly, nor do their errors add up evenly.
SHORTLIST_SHARES = (4.0, 1.0, 0.25)


@dataclass(frozen=True)
class Tuning:
    """The prices of candidates.

    Attributes:
        explored: the candidates.
        request: what was asked for.
        sizes: samples per call that prices are for, ascending.
        measured: by site what was timed; None where everything is counted.
    """

    explored: Explored
    request: Request
    sizes: tuple[int, ...]
    measured: Mapping[str, Measured] | None = None

    def timed(self, graph: fx.GraphModule, sites: Sequence[Site], timer: Timer) -> Tuning:
        """Return it with the parts of every site's promising candidates timed, until the timer has expired or Ctrl-C."""
        named = self.explored.rows if self.request.exact else self.explored.found
        found = [s for s in sites if s.name in named]
        measured: dict[str, Measured] = {}
        exact: dict[tuple[str, ...], ExactForm] = {}
        with timer.interruptible():
            for site in progress(found, "timing sites", "site"):
                if timer.expired:
                    timer.ran_out(f"{len(found) - len(measured)} of {len(found)} sites were not timed")
                    break
                measured[site.name] = self._time(site, block_of(graph, site.nodes), timer, exact)
                return_free_memory()  # what was scripted for it
        return replace(self, measured=measured)

    def _time(
        self, site: Site, block: nn.Sequential, timer: Timer, exact: dict[tuple[str, ...], ExactForm]
    ) -> Measured:
        """Time one site, at every batch size; `exact` has the forms of sites that call the same modules."""
        shortlist = self.shortlist(site)
        shown: dict[str, ExactForm] = {}
        fulls: dict[str, nn.Module] = {BLOCK: block}
        if shortlist and shortlist[0].branches.full is not None:
            fulls[str(shortlist[0].branches.full_form)] = shortlist[0].branches.full
        else:
            forms = [Transposed(), *([Prepacked()] if torch.backends.mkldnn.is_available() else [])]
            shown = {str(f): exact.setdefault((*site.linears, str(f)), ExactForm(f, block)) for f in forms}
            fulls.update({str(f): f.fit(block) for f in forms})
        make = f"{site.shape} {' '.join(type(layer).__name__ for layer in block)}"
        batches = self.batches(site.name, self.explored.rows[site.name])
        parts = {(str(c.branches.light_form), str(c.branches.gate_form)): c for c in shortlist}
        regions = {name: regions_beyond(block, c, batches[0]) for name, c in parts.items()}
        return Measured([timer.site(make, batch, shortlist, fulls) for batch in batches], shown, regions)

    def shortlist(self, site: Site) -> list[Candidate]:
        """Return the candidate of each family with the best counted price, for ample and scarce budgets."""
        best: dict[tuple[str, float], tuple[float, Candidate]] = {}
        rows = self.rows_per_call(site.name)
        for candidate in self.explored.found.get(site.name, ()):
            for share in SHORTLIST_SHARES:
                cost = counted(candidate, candidate.activity_at(self.budget(site, share)), rows).cost
                key = (candidate.family, share)
                if key not in best or cost < best[key][0]:
                    best[key] = (cost, candidate)
        return list({id(c): c for _, c in best.values()}.values())

    def batches(self, site: str, rows: Tensor) -> list[Tensor]:
        """Return what one call brings to a site, at each batch size: some of its rows, repeated where they are too few."""
        return [rows[torch.arange(count) % len(rows)] for count in self.rows_per_call(site)]

    def rows_per_call(self, site: str) -> list[int]:
        """Return rows that reach a site, at each batch size."""
        return [max(round(size * self.explored.per_sample[site]), 1) for size in self.sizes]

    def budget(self, site: Site, share: float) -> float:
        """Return a site's even part of `share` of the budget, in its own error."""
        return self.even_part(share) * self.explored.weights[site.name]

    def even_part(self, share: float) -> float:
        """Return what each site gets of `share` of the budget where all get the same, as deviation of the model's output.

        Errors of several sites are taken to add up like independent ones, so each gets 1 / sqrt(sites) of the budget.
        """
        return share * self.request.start / math.sqrt(max(len(self.explored.found), 1))

    def exact_form(self, site: str) -> ExactForm | None:
        """Return what computes a site exactly and faster, if it is not routed; see `Measured.exact`."""
        measured = (self.measured or {}).get(site)
        return measured.exact() if measured is not None and self.request.exact else None

    def only(self, explored: Explored) -> Tuning:
        """Return the prices of fewer candidates, with exact forms that are built again when they are asked for."""
        fresh: dict[int, ExactForm] = {}
        measured = None
        if self.measured is not None:
            measured = {
                site: replace(m, fulls={n: fresh.setdefault(id(f), replace(f)) for n, f in m.fulls.items()})
                for site, m in self.measured.items()
            }
        return replace(self, explored=explored, measured=measured)

    def known(self, site: str) -> list[Candidate]:
        """Return the candidates that have a price."""
        found = list(self.explored.found[site])
        if self.measured is None:
            return found
        return [c for c in found if site in self.measured and self.measured[site].knows(c)]

    def price(self, site: str, candidate: Candidate, activity: float, settled: bool = False) -> CostEstimate:
        """Return what a candidate costs: measured where there are measurements, counted otherwise; see `Measured.price`."""
        if self.measured and site in self.measured:
            return self.measured[site].price(candidate, activity, settled)
        return counted(candidate, activity, self.rows_per_call(site))

    def block_cost(self, site: Site) -> float:
        """Return what a site's block weighs among the others: ms where timed, multiply-adds otherwise."""
        measured = (self.measured or {}).get(site.name)
        return measured.times[-1].block if measured is not None else float(site.macs)
