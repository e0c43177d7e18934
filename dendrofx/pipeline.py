"""The stages behind `transform`, from found sites to a decided module, and the recipe that controls are built from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx, nn
from tqdm import tqdm

from dendrofx.block import BlockData, block_of, row_macs
from dendrofx.calibrate import STEPS, Step, apply_multiplier, multiplier_grid, walk
from dendrofx.calibration import Calibration
from dendrofx.choose import Candidate, SiteData, candidates, finite_rows
from dendrofx.errors import InputError
from dendrofx.gates import AlwaysLight, GateForm, SiteRows
from dendrofx.inputs import Inputs
from dendrofx.light import LightForm
from dendrofx.measure import Counts, deviation, outputs
from dendrofx.module import RoutedModule, routed_nodes, set_tolerances
from dendrofx.plan import Plan, SitePlan
from dendrofx.record import positional, record_rows
from dendrofx.rewrite import Branches, rewrite
from dendrofx.show import HEADERS, annotate_shapes
from dendrofx.sites import Refusal, Site, Sites

RECIPE = "dendrofx.recipe"
# A site must execute no more than this share of its block's multiply-adds: gather, scatter and the gate's own passes over
# memory are not counted, and smaller savings have never paid for them.
MOST_COMPUTE = 0.9
# Shares of the budget at which the branches of several sites are chosen and tried together, and the steps of such a trial.
BUDGET_SHARES = (1.0, 0.5, 0.25, 0.125)
TRIAL_STEPS = 16


@dataclass(frozen=True)
class Options:
    """What the caller asked for; see `transform`."""

    max_deviation: float
    lights: list[LightForm] | None
    gate: GateForm | None
    decide: bool
    seed: int


@dataclass(frozen=True)
class Recipe:
    """What a routed module was made from: enough to make it again with other gates."""

    captured: fx.GraphModule
    sites: tuple[Site, ...]
    branches: Mapping[str, Branches]
    scores: Mapping[str, Tensor]  # on the rows that branches were chosen on, in units of the multiplier
    weights: Mapping[str, float]


class Pipeline:
    """One run of the stages. `refused` grows; what is left in `chosen` is routed."""

    def __init__(
        self, captured: fx.GraphModule, sites: Sites, data: Calibration | None, example: Inputs | None, options: Options
    ) -> None:
        self.captured, self.sites, self.data, self.example, self.options = captured, sites, data, example, options
        self.refused: dict[str, Refusal] = {r.site: r for r in sites.refused}
        self.found: dict[str, list[Candidate]] = {}
        self.chosen: dict[str, Candidate] = {}
        self.weights: dict[str, float] = {}
        self.steps: list[Step] = []
        self.counts: Counts = {}

    def run(self) -> RoutedModule:
        """All stages."""
        self.explore()
        self.choose(self.best_share())
        module = self.calibrate()
        while self.options.decide and self.data is not None and self.chosen and self.refuse_losers():
            module = self.calibrate()
        return self.finish(module)

    # ----------------------------------------------------------------------------------------------- explore

    def explore(self) -> None:
        """Fit every candidate of every site, or refuse the site."""
        seed = self.options.seed
        sets = [] if self.data is None else [self.data.fit, self.data.gate, self.data.choose]
        rows = [record_rows(self.captured, self.sites, batches, seed) for batches in sets]
        for site in tqdm(self.sites, desc="fitting lights and gates", unit="site", delay=2):
            block = block_of(self.captured, site.nodes)
            if self.data is None:
                self.explore_site(site, SiteData.without_rows(block, site.widths[0], seed))
                continue
            parts = [finite_rows(block, recorded[site.name]) for recorded in rows]
            if min(len(p.outputs) for p in parts) < 2:
                self.refuse(site, "fewer than two of its calibration rows are finite")
            else:
                self.explore_site(site, SiteData(*parts))

    def explore_site(self, site: Site, data: SiteData) -> None:
        """Fit the candidates of one site and measure what its errors do to the model's output."""
        options = self.options
        found, reasons = candidates(data, options.lights, options.gate, options.seed)
        if found:
            self.found[site.name] = found
            self.weights[site.name] = 1.0 / self.sensitivity(site, found) if self.data is not None else 1.0
        elif self.data is None and (options.lights is not None or options.gate is not None):
            raise InputError(f"site '{site.name}': {reasons[0]}")
        else:
            self.refuse(site, reasons[0] if reasons else "no light form fits")

    # ------------------------------------------------------------------------------------------------ choose

    def choose(self, share: float) -> None:
        """Take each site's cheapest candidate at its part of `share` of the budget, or refuse the site.

        Errors of several sites are taken to add up like independent ones, so each gets 1 / sqrt(sites) of the budget.
        """
        self.chosen = {}
        for site in self.sites:
            if site.name not in self.found:
                continue
            part = share * self.options.max_deviation / math.sqrt(len(self.found))
            budget = part * self.weights[site.name]
            priced = [(self.price(c, budget), c) for c in self.found[site.name]]
            cost, best = min(priced, key=lambda pair: pair[0])
            if cost <= MOST_COMPUTE or not self.options.decide:
                self.chosen[site.name] = best
                continue
            where = "calibration rows" if self.data is not None else "standard normal probe rows (no data was given)"
            branches = best.branches
            self.refuse(
                site,
                f"no light form pays: the cheapest, {branches.light_form} with {branches.gate_form}, would execute"
                f" {100 * cost:.0f} % of the block's multiply-adds within the budget on {where}",
            )

    def best_share(self) -> float:
        """The share of the budget to choose at: the one whose choice executes least, walked on the choosing rows.

        Sites interact. Where they add up worse than independent errors, more cautious branches can end up cheaper.
        """
        if self.data is None or len(self.found) < 2:
            return BUDGET_SHARES[0]
        reference = outputs(self.captured, self.data.choose)
        tried: dict[float, float] = {}
        seen: set[tuple[str, ...]] = set()
        for share in BUDGET_SHARES:
            self.choose(share)
            choice = tuple(f"{n}: {c.branches.light_form}" for n, c in self.chosen.items())
            if choice and choice not in seen:
                module, weights = self.rewritten()
                steps = walk(module, weights, self.grid(TRIAL_STEPS), self.data.choose, reference, self.options.max_deviation)
                tried[share] = self.executed(steps[-1].counts if steps else {})
            seen.add(choice)
        return min(tried, key=lambda share: tried[share]) if tried else BUDGET_SHARES[0]

    def executed(self, counts: Counts) -> float:
        """Multiply-adds of all explored sites over those of their blocks; a site without counts runs its block."""
        macs = {s.name: s.macs for s in self.sites if s.name in self.found}
        return sum(m * (_executed(counts[n]) if n in counts else 1.0) for n, m in macs.items()) / sum(macs.values())

    def price(self, candidate: Candidate, budget: float) -> float:
        """What a candidate would execute within the budget, over the block's multiply-adds."""
        if self.data is None:
            hard = ~(candidate.score < self.options.max_deviation)
            return candidate.cost_at(float(hard.double().mean()))
        return candidate.cost_at(candidate.activity_at(budget))

    def sensitivity(self, site: Site, found: list[Candidate]) -> float:
        """How far the model's output moves per unit of the site's error, all rows light, measured on the fit samples."""
        assert self.data is not None
        if len(self.sites) == 1 and not self.refused and self.is_whole_model(site):
            return 1.0
        by_error = sorted(found, key=lambda c: float(c.error.mean()))
        probe = next((c for c in by_error if float(c.error.mean()) > self.options.max_deviation), by_error[-1])
        error = float(probe.error.mean())
        if not (error > 0 and math.isfinite(error)):
            return 1.0
        light = replace(probe.branches, gate_form=AlwaysLight(), gate=AlwaysLight().fit(_no_rows(probe.branches)))
        gm = rewrite(self.captured, [site], {site.name: light})
        set_tolerances(gm, dict.fromkeys(graph_names(gm).values(), 1.0))
        moved = deviation(outputs(self.captured, self.data.fit), outputs(gm, self.data.fit))
        slope = float(moved.mean()) / error
        return min(max(slope, 1e-3), 1e3) if math.isfinite(slope) else 1e3

    def is_whole_model(self, site: Site) -> bool:
        """Whether nothing but the site stands between input and output."""
        return sum(n.op not in ("placeholder", "output") for n in self.captured.graph.nodes) == len(site.nodes)

    @property
    def scores(self) -> dict[str, Tensor]:
        """The chosen gates' scores on the choosing rows, divided by the site's weight."""
        return {n: c.score / self.weights[n] for n, c in self.chosen.items()}

    def refuse(self, site: Site, reason: str) -> None:
        """Record why a site is not routed."""
        self.refused[site.name] = Refusal(site.name, reason, site.nodes[-1])

    # --------------------------------------------------------------------------------------------- calibrate

    def rewritten(self) -> tuple[RoutedModule, dict[str, float]]:
        """The module with what is chosen, every tolerance 0, and the sites' weights by graph name."""
        sites = [s for s in self.sites if s.name in self.chosen]
        module = rewrite(self.captured, sites, {n: c.branches for n, c in self.chosen.items()})
        names = graph_names(module)
        return module, {names[s]: self.weights[s] for s in self.chosen}

    def grid(self, steps: int) -> list[float]:
        """Multipliers to walk, fixed by the choosing rows."""
        return multiplier_grid(list(self.scores.values()), [c.full_macs for c in self.chosen.values()], steps)

    def calibrate(self) -> RoutedModule:
        """Rewrite with what is chosen, and set the tolerances on rows that were used for nothing yet."""
        module, weights = self.rewritten()
        self.steps, self.counts = [], {}
        if self.data is None:
            apply_multiplier(module, weights, self.options.max_deviation)
        elif self.chosen:
            reference = outputs(self.captured, self.data.walk)
            self.steps = walk(module, weights, self.grid(STEPS), self.data.walk, reference, self.options.max_deviation)
            self.counts = self.steps[-1].counts if self.steps else {}
        return module

    # ------------------------------------------------------------------------------------------------ decide

    def refuse_losers(self) -> bool:
        """Refuse the sites whose branches execute hardly less than the block did; whether there were any."""
        losers = []
        for site in self.sites:
            if site.name not in self.chosen:
                continue
            if not self.steps:
                losers.append((site, "even the smallest tolerance misses the budget on calibration rows"))
            elif (share := _executed(self.counts[site.name])) > MOST_COMPUTE:
                activity = _activity(self.counts[site.name])
                losers.append((site, f"would execute {100 * share:.0f} % of the block's multiply-adds (activity"
                                     f" {100 * activity:.0f} %) within the budget on calibration rows"))
        for site, reason in losers:
            del self.chosen[site.name]
            self.refuse(site, reason)
        return bool(losers)

    # ------------------------------------------------------------------------------------------------ finish

    def finish(self, module: RoutedModule) -> RoutedModule:
        """Attach plan, recipe and what printed graphs show."""
        entries = [self.entry(s, module) for s in self.sites]
        names = {s.name for s in self.sites}
        entries += [SitePlan(r.site, "refused", _located(r)) for r in self.refused.values() if r.site not in names]
        last = self.steps[-1] if self.steps else None
        module.plan = Plan(
            entries,
            self.options.max_deviation,
            deviation=last.upper if last else 0.0 if self.data is not None else None,
            samples=self.data.samples if self.data is not None else None,
            multiplier=last.multiplier if last else None,
        )
        chosen = {n: c.branches for n, c in self.chosen.items()}
        sites = tuple(s for s in self.sites if s.name in chosen)
        module.meta[RECIPE] = Recipe(self.captured, sites, chosen, self.scores, self.weights)
        module.meta[HEADERS] = {e.name: _header(e) for e in module.plan.routed}
        if self.example is not None:
            with torch.no_grad():
                annotate_shapes(module, tuple(positional(module, self.example)), self.example.samples)
        return module

    def entry(self, site: Site, module: RoutedModule) -> SitePlan:
        """A site's line in the plan."""
        if site.name not in self.chosen:
            return SitePlan(site.name, "refused", _located(self.refused[site.name]), site.shape)
        candidate = self.chosen[site.name]
        counts = self.counts.get(site.name)
        light_share = row_macs(candidate.branches.light) / candidate.full_macs
        reason = f"light costs {100 * light_share:.1f} % of the block's multiply-adds"
        return SitePlan(
            site.name,
            "routed",
            reason if self.options.decide else f"{reason}; routed without a decision (decide=False)",
            site.shape,
            light=str(candidate.branches.light_form),
            gate=str(candidate.branches.gate_form),
            tolerance=float(module.get_buffer(f"routed.{graph_names(module)[site.name]}.tolerance")),
            activity=_activity(counts) if counts else None,
            compute=_executed(counts) if counts else None,
            skill=candidate.skill,
        )


def graph_names(gm: RoutedModule) -> dict[str, str]:
    """Site name -> its name inside the module (`routed.NAME.gate`)."""
    return {site: str(node.target).split(".")[-2] for site, node in routed_nodes(gm)}


def _no_rows(branches: Branches) -> SiteRows:
    return SiteRows(BlockData(nn.Sequential()), branches.light)


def _executed(counts: Mapping[str, int]) -> float:
    return (counts["gate_macs"] + counts["light_macs"] + counts["full_macs"]) / max(counts["original_macs"], 1)


def _activity(counts: Mapping[str, int]) -> float:
    return counts["hard_rows"] / max(counts["rows"], 1)


def _located(refusal: Refusal) -> str:
    return refusal.reason if refusal.node is None else f"{refusal.reason} (%{refusal.node})"


def _header(entry: SitePlan) -> str:
    rate = "not calibrated" if entry.activity is None else f"full rows {100 * entry.activity:.1f} % (calibration)"
    return f"light {entry.light}   gate {entry.gate} < {entry.tolerance:.3g}   {rate}"
