"""Tuning: what each site's candidates cost, timed where there is a timer, counted where there is none."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, fx, nn

from dendrofx.graph.block import block_of
from dendrofx.graph.sites import Site
from dendrofx.light import LightForm, Prepacked
from dendrofx.machine.memory import trim
from dendrofx.machine.progress import progress
from dendrofx.search.choose import Candidate
from dendrofx.search.cost import BLOCK
from dendrofx.search.explore import Explored, Options
from dendrofx.search.prices import Measured, Price, counted
from dendrofx.search.stopwatch import Timer

# Shares of the budget at which candidates are worth timing: sites need not share evenly, nor do their errors add up evenly.
SHORTLIST_SHARES = (4.0, 1.0, 0.25)


class Tuning:
    """The prices of one run.

    Args:
        captured: the captured module.
        explored: its candidates.
        options: what the caller asked for.
        sizes: samples per call that prices are for, ascending.
        timer: what times; None counts.
    """

    def __init__(
        self,
        captured: fx.GraphModule,
        explored: Explored,
        options: Options,
        sizes: tuple[int, ...],
        timer: Timer | None = None,
    ) -> None:
        self.captured, self.explored, self.options, self.sizes, self.timer = captured, explored, options, sizes, timer
        self.measured: dict[str, Measured] = {}
        self.exact: dict[tuple[str, ...], list[nn.Module]] = {}

    def run(self, sites: Sequence[Site]) -> None:
        """Time the parts of every site's promising candidates, until the timer has expired or Ctrl-C."""
        if self.timer is None:
            return
        found = [s for s in sites if s.name in (self.explored.rows if self.options.exact else self.explored.found)]
        with self.timer.interruptible():
            for site in progress(found, "timing sites", "site"):
                if self.timer.expired:
                    self.timer.ran_out(f"{len(found) - len(self.measured)} of {len(found)} sites were not timed")
                    return
                self.measured[site.name] = self._time(site, self.timer)
                trim()  # what was scripted for it

    def _time(self, site: Site, timer: Timer) -> Measured:
        """One site, at every batch size."""
        block, shortlist = block_of(self.captured, site.nodes), self.shortlist(site)
        exact: Mapping[str, tuple[LightForm, nn.Module]] = {}
        fulls: dict[str, nn.Module] = {BLOCK: block}
        if shortlist and shortlist[0].branches.full is not None:
            fulls[str(shortlist[0].branches.full_form)] = shortlist[0].branches.full
        elif torch.backends.mkldnn.is_available():
            form = Prepacked()
            exact = _Exact(form, block, self.exact.setdefault(site.linears, []))
            fulls[str(form)] = form.fit(block)
        make = f"{site.shape} {' '.join(type(layer).__name__ for layer in block)}"
        batches = self.batches(site.name, self.explored.rows[site.name])
        return Measured([timer.site(make, batch, shortlist, fulls) for batch in batches], exact)

    def shortlist(self, site: Site) -> list[Candidate]:
        """The candidate of each family with the best counted price, for ample and scarce budgets."""
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
        """What one call brings to a site, at each batch size: some of its rows, repeated where they are too few."""
        return [rows[torch.arange(count) % len(rows)] for count in self.rows_per_call(site)]

    def rows_per_call(self, site: str) -> list[int]:
        """Rows that reach a site, at each batch size."""
        return [max(round(size * self.explored.per_sample[site]), 1) for size in self.sizes]

    def budget(self, site: Site, share: float) -> float:
        """A site's part of `share` of the budget, in its own error.

        Errors of several sites are taken to add up like independent ones, so each gets 1 / sqrt(sites) of the budget.
        """
        part = share * self.options.max_deviation / math.sqrt(max(len(self.explored.found), 1))
        return part * self.explored.weights[site.name]

    def exact_form(self, site: str) -> tuple[LightForm, nn.Module] | None:
        """What computes a site exactly and faster, if it is not routed; see `Measured.exact`."""
        measured = self.measured.get(site)
        return measured.exact() if measured is not None and self.options.exact else None

    def forget(self) -> None:
        """Drop the exact forms that were built so far: what is asked for again is built again."""
        for built in self.exact.values():
            built.clear()

    def known(self, site: str) -> list[Candidate]:
        """The candidates that have a price."""
        if self.timer is None:
            return self.explored.found[site]
        measured = self.measured.get(site)
        return [] if measured is None else [c for c in self.explored.found[site] if measured.knows(c)]

    def price(self, site: str, candidate: Candidate, activity: float, settled: bool = False) -> Price:
        """Measured where there are measurements, counted otherwise; see `Measured.price`."""
        if site in self.measured:
            return self.measured[site].price(candidate, activity, settled)
        return counted(candidate, activity, self.rows_per_call(site))

    def block_cost(self, site: Site) -> float:
        """What a site's block weighs among the others: ms where timed, multiply-adds otherwise."""
        measured = self.measured.get(site.name)
        return measured.times[-1].block if measured is not None else float(site.macs)


class _Exact(Mapping[str, tuple[LightForm, nn.Module]]):
    """A site's exact form by its name, built when it is first asked for: most are not, and laid-out weights take memory.

    Args:
        form: the exact form.
        block: of the site.
        built: empty until then; calls of the same modules share it.
    """

    def __init__(self, form: LightForm, block: nn.Sequential, built: list[nn.Module]) -> None:
        self.form, self.block, self.built = form, block, built

    def __getitem__(self, name: str) -> tuple[LightForm, nn.Module]:
        if name != str(self.form):
            raise KeyError(name)
        if not self.built:
            self.built.append(self.form.fit(self.block))
        return self.form, self.built[0]

    def __iter__(self) -> Iterator[str]:
        return iter([str(self.form)])

    def __len__(self) -> int:
        return 1
