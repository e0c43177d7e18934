"""Choosing, calibrating and deciding: from explored sites to a decided module.

choose       each site's cheapest candidate at its part of the budget
calibrate    one multiplier for all tolerances, walked on rows that were used for nothing yet
decide       refuse the sites that do not pay, and calibrate again
"""

from __future__ import annotations

import math

from torch import Tensor, fx

from dendrofx.calibrate import STEPS, Step, apply_multiplier, multiplier_grid, walk
from dendrofx.calibration import Calibration
from dendrofx.choose import Candidate
from dendrofx.explore import Explored, Options, explore
from dendrofx.inputs import Inputs
from dendrofx.measure import Counts, outputs, site_activity
from dendrofx.module import RoutedModule, graph_names
from dendrofx.rewrite import rewrite
from dendrofx.sites import Refusal, Site, Sites

# A site must cost no more than this share of its block: gather, scatter and the gate's own passes over memory are not
# counted, and smaller savings have not paid for them.
MOST_COST = 0.9
# Shares of the budget at which the branches of several sites are chosen and tried together, and the steps of such a trial.
BUDGET_SHARES = (1.0, 0.5, 0.25, 0.125)
TRIAL_STEPS = 16


class Pipeline:
    """One run of the stages. `refused` grows; what is left in `chosen` is routed."""

    def __init__(self, captured: fx.GraphModule, sites: Sites, data: Calibration | None, options: Options) -> None:
        self.captured, self.sites, self.data, self.options = captured, sites, data, options
        self.refused: dict[str, Refusal] = {r.site: r for r in sites.refused}
        self.explored = Explored()
        self.chosen: dict[str, Candidate] = {}
        self.steps: list[Step] = []

    def run(self) -> RoutedModule:
        """All stages."""
        self.explored = explore(self.captured, self.sites, self.data, self.options)
        self.refused.update(self.explored.refused)
        self.choose(self.best_share())
        module = self.calibrate()
        while self.options.decide and self.data is not None and self.chosen and self.refuse_losers():
            module = self.calibrate()
        return module

    # ------------------------------------------------------------------------------------------------ choose

    def choose(self, share: float) -> None:
        """Take each site's cheapest candidate at its part of `share` of the budget, or refuse the site.

        Errors of several sites are taken to add up like independent ones, so each gets 1 / sqrt(sites) of the budget.
        """
        self.chosen = {}
        part = share * self.options.max_deviation / math.sqrt(max(len(self.explored.found), 1))
        for site in self.sites:
            if site.name not in self.explored.found:
                continue
            budget = part * self.explored.weights[site.name]
            priced = [(self.price(site, c, budget), c) for c in self.explored.found[site.name]]
            cost, best = min(priced, key=lambda pair: pair[0])
            if cost <= MOST_COST or not self.options.decide:
                self.chosen[site.name] = best
                self.refused.pop(site.name, None)
                continue
            where = "calibration rows" if self.data is not None else "standard normal probe rows (no data was given)"
            forms = f"{best.branches.light_form} with {best.branches.gate_form}"
            self.refuse(
                site,
                f"no light form pays: the cheapest, {forms}, would cost {100 * cost:.0f} % of the block within the"
                f" budget on {where}",
            )

    def price(self, site: Site, candidate: Candidate, budget: float) -> float:
        """The counted cost of a candidate within the budget, over the block's."""
        if self.data is None:
            activity = float((~(candidate.score < self.options.max_deviation)).double().mean())
        else:
            activity = candidate.activity_at(budget)
        return candidate.macs.cost(activity, self.explored.rows_per_call[site.name])

    def best_share(self) -> float:
        """The share of the budget to choose at: the one whose choice costs least, walked on the choosing rows.

        Sites interact. Where their errors add up worse than independent ones, more cautious branches can end up cheaper.
        """
        if self.data is None or len(self.explored.found) < 2:
            return BUDGET_SHARES[0]
        tried: dict[float, float] = {}
        seen: set[tuple[str, ...]] = set()
        for share in BUDGET_SHARES:
            self.choose(share)
            choice = tuple(f"{n}: {c.branches.light_form}" for n, c in self.chosen.items())
            if choice and choice not in seen:
                _, steps = self.walked(self.data.choose, TRIAL_STEPS)
                tried[share] = self.cost_of(steps[-1].counts if steps else {})
            seen.add(choice)
        return min(tried, key=lambda share: tried[share]) if tried else BUDGET_SHARES[0]

    def cost_of(self, counts: Counts) -> float:
        """Counted cost of all explored sites over that of their blocks; a site without counts runs its block."""
        macs = {s.name: s.macs for s in self.sites if s.name in self.explored.found}
        return sum(m * (self.site_cost(n, counts) if n in counts else 1.0) for n, m in macs.items()) / sum(
            macs.values()
        )

    def site_cost(self, name: str, counts: Counts) -> float:
        """Counted cost of one routed site over its block's, at the activity in `counts`."""
        return self.chosen[name].macs.cost(site_activity(counts[name]), self.explored.rows_per_call[name])

    def refuse(self, site: Site, reason: str) -> None:
        """Record why a site is not routed."""
        self.chosen.pop(site.name, None)
        self.refused[site.name] = Refusal(site.name, reason, site.nodes[-1])

    # --------------------------------------------------------------------------------------------- calibrate

    @property
    def scores(self) -> dict[str, Tensor]:
        """The chosen gates' scores on the choosing rows, in units of the multiplier."""
        return {n: c.score / self.explored.weights[n] for n, c in self.chosen.items()}

    def rewritten(self) -> tuple[RoutedModule, dict[str, float]]:
        """The module with what is chosen, every tolerance 0, and the sites' weights by graph name."""
        sites = [s for s in self.sites if s.name in self.chosen]
        module = rewrite(self.captured, sites, {n: c.branches for n, c in self.chosen.items()})
        names = graph_names(module)
        return module, {names[s]: self.explored.weights[s] for s in self.chosen}

    def walked(self, batches: list[Inputs], steps: int) -> tuple[RoutedModule, list[Step]]:
        """The module with what is chosen, its multiplier walked on `batches` over a grid fixed by the choosing rows."""
        module, weights = self.rewritten()
        grid = multiplier_grid(list(self.scores.values()), [c.full_macs for c in self.chosen.values()], steps)
        reference = outputs(self.captured, batches)
        return module, walk(module, weights, grid, batches, reference, self.options.max_deviation)

    def calibrate(self) -> RoutedModule:
        """Rewrite with what is chosen, and set the tolerances."""
        self.steps = []
        if self.data is not None and self.chosen:
            module, self.steps = self.walked(self.data.walk, STEPS)
            return module
        module, weights = self.rewritten()
        apply_multiplier(module, weights, self.options.max_deviation)
        return module

    # ------------------------------------------------------------------------------------------------ decide

    def refuse_losers(self) -> bool:
        """Refuse the sites that cost hardly less than their block; whether there were any."""
        losers: list[tuple[Site, str]] = []
        for site in [s for s in self.sites if s.name in self.chosen]:
            if not self.steps:
                losers.append((site, "even the smallest tolerance misses the budget on calibration rows"))
                continue
            counts = self.steps[-1].counts
            if (cost := self.site_cost(site.name, counts)) > MOST_COST:
                active = f"(activity {100 * site_activity(counts[site.name]):.0f} %)"
                losers.append(
                    (site, f"would cost {100 * cost:.0f} % of the block {active} within the budget on calibration rows")
                )
        for site, reason in losers:
            self.refuse(site, reason)
        return bool(losers)
