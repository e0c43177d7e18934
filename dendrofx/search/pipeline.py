"""Choosing, calibrating and deciding: from explored sites to a decided module.

tune         time the parts of every promising candidate, at every batch size (`search/tuning.py`)
choose       each site's cheapest candidate at its part of the budget
calibrate    one multiplier for all tolerances, walked on rows that were used for nothing yet
decide       refuse the sites that do not pay, and calibrate again
verify       the whole rewritten model against the original; while it does not win, the least site goes

Sites interact, in their errors and in their times: so the budget's share to choose at is tried on the model's output, and the
last word has the model's own time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

from torch import Tensor, fx, nn

from dendrofx.errors import InputError
from dendrofx.graph.record import record_rows
from dendrofx.graph.sites import Refusal, Site, Sites
from dendrofx.guarantee.budget import Budget
from dendrofx.guarantee.losses import counted_losses, reference_picks
from dendrofx.light import LightForm
from dendrofx.machine.memory import release
from dendrofx.machine.progress import progress
from dendrofx.plan.times import ModelTimes
from dendrofx.rewriting.module import RoutedModule, graph_names
from dendrofx.rewriting.rewrite import rewrite, use_exact
from dendrofx.search.calibrate import STEPS, Outcome, Step, apply_multiplier, multiplier_grid, start_of, walk
from dendrofx.search.choose import PROBE_ROWS, Candidate
from dendrofx.search.explore import MANY_SITES, Explored, Options, explore
from dendrofx.search.prices import Price, cheapest
from dendrofx.search.stopwatch import Timer
from dendrofx.search.tuning import Tuning
from dendrofx.search.verify import judge, lost, timing_batches, unreliable
from dendrofx.values.calibration import Calibration
from dendrofx.values.counts import Counts, of_sites, site_activity
from dendrofx.values.covered import Covered, cover, covered_by
from dendrofx.values.inputs import Inputs
from dendrofx.values.measure import counted_outputs, deviations, outputs

# Shares of the budget at which the branches of several sites are chosen and tried together, and the steps of such a trial.
BUDGET_SHARES = (4.0, 2.0, 1.0, 0.5, 0.25)
TRIAL_STEPS = 16
# The walks of models of many sites, which run the model once a step, take fewer steps.
FEWER = 4


class Pipeline:
    """One run of the stages. `refused` grows; what is left in `chosen` is routed.

    Args:
        captured: the captured module.
        sites: its selected sites.
        data: calibration, or None.
        options: what the caller asked for.
        timer: what times; None decides by counted cost alone.
        example: inputs to time the whole model on where there is no calibration.
        original: what the rewritten model is timed against; the captured module itself by default.
    """

    tuning: Tuning

    def __init__(
        self,
        captured: fx.GraphModule,
        sites: Sites,
        data: Calibration | None,
        options: Options,
        timer: Timer | None = None,
        example: Inputs | None = None,
        original: fx.GraphModule | None = None,
    ) -> None:
        self.captured, self.sites, self.data, self.timer = captured, sites, data, timer
        self.options = replace(options, covered=self.covered(options))
        self.example = example
        self.original = captured if original is None else original
        self.exact_on = options.exact
        self.lost: str | None = None
        self.refused: dict[str, Refusal] = {r.site: r for r in sites.refused}
        self.explored = Explored()
        self.chosen: dict[str, Candidate] = {}
        self.prices: dict[str, Price] = {}
        self.steps: list[Step] = []
        self.reached = 0.0
        self.model_times: list[ModelTimes] = []

    def covered(self, options: Options) -> Covered | None:
        """The outputs that are measured; None where none is.

        Raises:
            InputError: an output that is covered is not per sample.
        """
        measured = len(self.sites) > 0 and options.max_deviation > 0
        if options.covered is not None or self.data is None or not (measured or options.output is not None):
            return options.covered
        budget, batches = options.budget, self.data.fit
        if budget is not None:
            return covered_by(self.captured, batches, budget.cover, strict=True)
        return covered_by(self.captured, batches, partial(cover, asked=options.output), strict=False)

    def run(self) -> RoutedModule:
        """All stages."""
        interruptible = nullcontext if self.timer is None else self.timer.interruptible
        self.explored = explore(self.captured, self.sites, self.data, self.options, interruptible, self.example)
        release()
        self.refused.update(self.explored.refused)
        sizes = batch_sizes(self.options, self.data, self.example)
        timed = self.data is not None or (self.options.exact and self.example is not None)
        self.tuning = Tuning(self.captured, self.explored, self.options, sizes, self.timer if timed else None)
        self.tuning.run(self.sites)
        release()
        self.choose(self.best_share())
        if self.options.budget is None and len(self.sites) > MANY_SITES:  # with a budget the front chooses again
            self.forget()
        module = self.settled()
        while self.options.decide and self.timer is not None and self.rewrites and self.refuse_slow(module, self.timer):
            module = self.settled()
        return module

    def forget(self) -> None:
        """Drop the candidates that were not chosen, and the rows: on models of many sites they weigh as much as the model."""
        for name in self.explored.found:
            self.explored.found[name] = [self.chosen[name]] if name in self.chosen else []
        self.tuning.forget()
        if self.data is not None:
            self.explored.rows.clear()
        release()

    def rows(self, sites: Sequence[Site]) -> Mapping[str, Tensor]:
        """Rows that reach sites, to time them on; those that were dropped are recorded again."""
        if self.data is None or all(s.name in self.explored.rows for s in sites):
            return self.explored.rows
        return record_rows(self.captured, sites, self.data.choose, self.options.seed).rows

    @property
    def rewrites(self) -> bool:
        """Whether anything is rewritten, and could be given up."""
        return self.lost is None and bool(self.chosen or self.exact_forms() or self.original is not self.captured)

    def exact_forms(self) -> dict[str, tuple[LightForm, nn.Module]]:
        """By name, the exact forms of the sites that are not routed."""
        if not self.exact_on:
            return {}
        found = {s.name: self.tuning.exact_form(s.name) for s in self.sites if s.name not in self.chosen}
        return {name: form for name, form in found.items() if form is not None}

    # ------------------------------------------------------------------------------------------------ choose

    def choose(self, share: float) -> None:
        """Take each site's cheapest candidate at its part of `share` of the budget, or refuse the site."""
        self.chosen = {}
        for site in self.sites:
            if site.name not in self.explored.found:
                continue
            known = self.tuning.known(site.name)
            if not known:
                self.refuse(site, "not timed: tuning was interrupted or out of time (tune_seconds) before its turn")
                continue
            priced = [self.price(site.name, c, self.activity(site, c, share)) for c in known]
            best = cheapest(priced)
            if best.pays or not self.options.decide:
                self.chosen[site.name], self.prices[site.name] = best.candidate, best
                self.refused.pop(site.name, None)
                continue
            where = "calibration rows" if self.data is not None else "standard normal probe rows (no data was given)"
            branches = best.candidate.branches
            forms = f"{branches.light_form} with {branches.gate_form}"
            self.refuse(site, f"no light form pays: the cheapest, {forms}, {best} within the budget on {where}")

    def activity(self, site: Site, candidate: Candidate, share: float) -> float:
        """The activity that a candidate needs within its part of the budget."""
        if self.data is None:
            return float((~(candidate.score < self.options.max_deviation)).double().mean())
        return candidate.activity_at(self.tuning.budget(site, share))

    def price(self, site: str, candidate: Candidate, activity: float) -> Price:
        """See `Tuning.price`; a chosen candidate keeps its full branch."""
        return self.tuning.price(site, candidate, activity, settled=self.chosen.get(site) is candidate)

    def best_share(self) -> float:
        """The share of the budget to choose at: the one whose choice costs least, walked on the choosing rows.

        Where errors of sites add up worse than independent ones, more cautious branches can end up cheaper. The multiplier that
        its walk reached is kept: calibration starts near it.
        """
        if self.data is None:
            return 1.0
        tried: dict[float, tuple[float, float]] = {}  # cost, and multiplier reached
        seen: set[tuple[str, ...]] = set()
        for share in progress(BUDGET_SHARES, "choosing jointly"):
            self.choose(share)
            choice = tuple(f"{n}: {c.branches.light_form}, {c.branches.gate_form}" for n, c in self.chosen.items())
            if choice and choice not in seen:
                _, steps = self.walked(self.data.choose, self.steps_of(TRIAL_STEPS))
                tried[share] = (
                    (self.cost_of(steps[-1].counts), steps[-1].multiplier) if steps else (self.cost_of({}), 0.0)
                )
            seen.add(choice)
        best = min(tried, key=lambda share: tried[share][0], default=1.0)
        self.reached = tried.get(best, (1.0, 0.0))[1]
        return best

    def cost_of(self, counts: Counts) -> float:
        """Cost of all explored sites over that of their blocks; a site without counts runs its block."""
        blocks = {s.name: self.tuning.block_cost(s) for s in self.sites if s.name in self.explored.found}
        costs = {n: self.price(n, self.chosen[n], site_activity(c)).cost for n, c in of_sites(counts).items()}
        return sum(b * costs.get(n, 1.0) for n, b in blocks.items()) / sum(blocks.values())

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
        module = rewrite(self.with_exact(), sites, {n: c.branches for n, c in self.chosen.items()})
        names = graph_names(module)
        return module, {names[s]: self.explored.weights[s] for s in self.chosen}

    def with_exact(self) -> fx.GraphModule:
        """The captured module with the exact forms in it."""
        forms = self.exact_forms()
        modules = {name: module for name, (_, module) in forms.items()}
        return use_exact(self.captured, [s for s in self.sites if s.name in forms], modules)

    def walked(self, batches: list[Inputs], steps: int, reached: float = 0.0) -> tuple[RoutedModule, list[Step]]:
        """The module with what is chosen, its multiplier walked on `batches` over a grid fixed by the choosing rows.

        Args:
            batches: what to walk on.
            steps: of the grid.
            reached: a multiplier to start near; not one that these batches reached.
        """
        module, weights = self.rewritten()
        grid = multiplier_grid(list(self.scores.values()), [c.full_macs for c in self.chosen.values()], steps)
        budget = self.options.budget
        limit = self.options.max_deviation if budget is None else budget.limit
        outcome = self.deviations_on(batches) if budget is None else self.losses_on(batches, budget)
        return module, walk(module, weights, grid, outcome, limit, start_of(grid, reached), margin=budget is None)

    def deviations_on(self, batches: Sequence[Inputs]) -> Outcome:
        """Measures a module's deviations on batches."""
        covered = self.options.covered
        reference = outputs(self.captured, batches, covered)

        def outcome(gm: RoutedModule) -> tuple[Tensor, Counts]:
            found, counts = counted_outputs(gm, batches, covered)
            return deviations(reference, found), counts

        return outcome

    def losses_on(self, batches: Sequence[Inputs], budget: Budget) -> Outcome:
        """Measures a module's losses on batches, in the metric of a budget."""
        covered = self.options.covered
        assert covered is not None
        references = reference_picks(self.original, self.captured, batches, covered)
        return lambda gm: counted_losses(gm, batches, references, budget, covered)

    def steps_of(self, steps: int) -> int:
        """How many steps a walk takes."""
        return steps if len(self.sites) <= MANY_SITES else steps // FEWER

    def calibrate(self) -> RoutedModule:
        """Rewrite with what is chosen, and set the tolerances."""
        self.steps = []
        if self.data is not None and self.chosen:
            module, self.steps = self.walked(self.data.walk, self.steps_of(STEPS), self.reached)
            return module
        module, weights = self.rewritten()
        apply_multiplier(module, weights, self.options.max_deviation)
        return module

    def settled(self) -> RoutedModule:
        """Calibrated, and again while sites turn out not to pay."""
        module = self.calibrate()
        while self.options.decide and self.data is not None and self.chosen and self.refuse_losers():
            module = self.calibrate()
        return module

    # ------------------------------------------------------------------------------------------------ decide

    def refuse_losers(self) -> bool:
        """Refuse the sites that cost hardly less than their block; whether there were any."""
        losers: list[tuple[Site, str]] = []
        for site in [s for s in self.sites if s.name in self.chosen]:
            if not self.steps:
                losers.append((site, "even the smallest tolerance misses the budget on calibration rows"))
                continue
            active = site_activity(self.steps[-1].counts[site.name])
            price = self.prices[site.name] = self.price(site.name, self.chosen[site.name], active)
            if not price.pays:
                activity = f"at an activity of {100 * active:.1f} %"
                losers.append((site, f"{price} {activity}, which the budget needs on calibration rows"))
        for site, reason in losers:
            self.refuse(site, reason)
        return bool(losers)

    # ------------------------------------------------------------------------------------------------ verify

    def refuse_slow(self, module: RoutedModule, timer: Timer) -> bool:
        """Time the whole model; where it does not win, refuse the sites with the least predicted gain. Whether it lost."""
        times: list[ModelTimes] = []
        release()  # the walks'
        with timer.interruptible():
            times = self.time_model(module, timer)
        release()
        self.model_times = times
        if not times:
            if self.data is None and self.example is None:
                return False
            for site in [s for s in self.sites if s.name in self.chosen]:
                self.refuse(site, "tuning was interrupted before the rewritten model was timed against the original")
            return True
        if (reason := lost(times, self.options.min_speedup)) is None:
            return False
        if not self.chosen:
            live = "on live rows alone the model"
            self.lost = None if self.exact_forms() else lost(times, self.options.min_speedup, live)
            self.exact_on = False
            return True
        blocks = {s.name: self.tuning.block_cost(s) for s in self.sites if s.name in self.chosen}
        ranked = sorted(blocks, key=lambda n: (1 - self.prices[n].cost) * blocks[n])
        gone = ranked if unreliable(times, self.options.min_speedup) else ranked[: -(-len(ranked) // 4)]
        for site in [s for s in self.sites if s.name in gone]:
            self.refuse(site, reason)
        return True

    def time_model(self, module: RoutedModule, timer: Timer) -> list[ModelTimes]:
        """The rewritten model against the original, at every batch size."""
        given: Sequence[Inputs] = [*self.data.choose, *self.data.walk] if self.data is not None else []
        if not given and self.example is not None:
            given = [self.example]
        times = []
        for size in self.tuning.sizes if given else ():
            batches = timing_batches(given, size)
            if not batches:
                raise InputError(f"batch_sizes: no calibration batch can be cut or repeated to {size} samples")
            times.append(judge(timer.models(self.original, module, batches), size))
        return times


def batch_sizes(options: Options, data: Calibration | None, example: Inputs | None) -> tuple[int, ...]:
    """Samples per call that the decision is taken for, ascending."""
    seen = data.sizes if data is not None else (example.samples,) if example is not None else (PROBE_ROWS,)
    few = tuple(sorted({seen[0], seen[len(seen) // 2], seen[-1]}))
    return options.batch_sizes or few
