"""The stages behind `transform`, from found sites to a decided module, and the recipe that controls are built from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import fx, nn
from tqdm import tqdm

from dendrofx.block import BlockData, block_of, row_macs
from dendrofx.calibrate import Step, apply_multiplier, multiplier_grid, walk
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


class Pipeline:
    """One run of the stages. `refused` grows; what is left in `chosen` is routed."""

    def __init__(
        self, captured: fx.GraphModule, sites: Sites, data: Calibration | None, example: Inputs | None, options: Options
    ) -> None:
        self.captured, self.sites, self.data, self.example, self.options = captured, sites, data, example, options
        self.refused: dict[str, Refusal] = {r.site: r for r in sites.refused}
        self.chosen: dict[str, Candidate] = {}
        self.weights: dict[str, float] = {}
        self.steps: list[Step] = []
        self.counts: Counts = {}

    def run(self) -> RoutedModule:
        """All stages."""
        self.choose()
        module = self.calibrate()
        while self.options.decide and self.data is not None and self.chosen and self.refuse_losers():
            module = self.calibrate()
        return self.finish(module)

    # ------------------------------------------------------------------------------------------------ choose

    def choose(self) -> None:
        """A light branch and a gate for each site, or a refusal."""
        seed = self.options.seed
        sets = [] if self.data is None else [self.data.fit, self.data.gate, self.data.choose]
        rows = [record_rows(self.captured, self.sites, batches, seed) for batches in sets]
        for site in tqdm(self.sites, desc="choosing lights and gates", unit="site", delay=2):
            block = block_of(self.captured, site.nodes)
            if self.data is None:
                self.choose_for(site, SiteData.without_rows(block, site.widths[0], seed))
                continue
            parts = [finite_rows(block, recorded[site.name]) for recorded in rows]
            if min(len(p.outputs) for p in parts) < 2:
                self.refuse(site, "fewer than two of its calibration rows are finite")
            else:
                self.choose_for(site, SiteData(*parts))

    def choose_for(self, site: Site, data: SiteData) -> None:
        """Take the cheapest candidate at the site's share of the budget."""
        options = self.options
        found, reasons = candidates(data, options.lights, options.gate, options.seed)
        if not found:
            if self.data is None and (options.lights is not None or options.gate is not None):
                raise InputError(f"site '{site.name}': {reasons[0]}")
            self.refuse(site, reasons[0] if reasons else "no light form fits")
            return
        sensitivity = self.sensitivity(site, found) if self.data is not None else 1.0
        budget = options.max_deviation / (sensitivity * math.sqrt(len(self.sites)))
        if self.data is None:
            priced = [(c.cost_at(float((~(c.score < options.max_deviation)).double().mean())), c) for c in found]
        else:
            priced = [(c.cost_at(c.activity_at(budget)), c) for c in found]
        cost, best = min(priced, key=lambda pair: pair[0])
        if options.decide and cost >= 1:
            where = "calibration rows" if self.data is not None else "standard normal probe rows (no data was given)"
            branches = best.branches
            self.refuse(
                site,
                f"no light form pays: the cheapest, {branches.light_form} with {branches.gate_form}, would execute"
                f" {100 * cost:.0f} % of the block's multiply-adds within the budget on {where}",
            )
            return
        self.chosen[site.name], self.weights[site.name] = best, 1.0 / sensitivity

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
        set_tolerances(gm, dict.fromkeys(_graph_names(gm).values(), 1.0))
        moved = deviation(outputs(self.captured, self.data.fit), outputs(gm, self.data.fit))
        slope = float(moved.mean()) / error
        return min(max(slope, 1e-3), 1e3) if math.isfinite(slope) else 1e3

    def is_whole_model(self, site: Site) -> bool:
        """Whether nothing but the site stands between input and output."""
        return sum(n.op not in ("placeholder", "output") for n in self.captured.graph.nodes) == len(site.nodes)

    def refuse(self, site: Site, reason: str) -> None:
        """Record why a site is not routed."""
        self.refused[site.name] = Refusal(site.name, reason, site.nodes[-1])

    # --------------------------------------------------------------------------------------------- calibrate

    def calibrate(self) -> RoutedModule:
        """Rewrite with what is chosen, and set the tolerances."""
        sites = [s for s in self.sites if s.name in self.chosen]
        module = rewrite(self.captured, sites, {n: c.branches for n, c in self.chosen.items()})
        names = _graph_names(module)
        weights = {names[s]: self.weights[s] for s in self.chosen}
        self.steps, self.counts = [], {}
        if self.data is None:
            apply_multiplier(module, weights, self.options.max_deviation)
        elif self.chosen:
            reference = outputs(self.captured, self.data.walk)
            scores = [c.score / self.weights[n] for n, c in self.chosen.items()]
            grid = multiplier_grid(scores, [c.full_macs for c in self.chosen.values()])
            self.steps = walk(module, weights, grid, self.data.walk, reference, self.options.max_deviation)
            self.counts = self.steps[-1].counts if self.steps else {}
        return module

    # ------------------------------------------------------------------------------------------------ decide

    def refuse_losers(self) -> bool:
        """Refuse the sites whose branches execute no less than the block did; whether there were any."""
        losers = []
        for site in self.sites:
            if site.name not in self.chosen:
                continue
            if not self.steps:
                losers.append((site, "even the smallest tolerance misses the budget on calibration rows"))
            elif (share := _executed(self.counts[site.name])) >= 1:
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
        module.meta[RECIPE] = Recipe(self.captured, tuple(s for s in self.sites if s.name in chosen), chosen)
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
            tolerance=float(module.get_buffer(f"routed.{_graph_names(module)[site.name]}.tolerance")),
            activity=_activity(counts) if counts else None,
            compute=_executed(counts) if counts else None,
            skill=candidate.skill,
        )


def _graph_names(gm: RoutedModule) -> dict[str, str]:
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
