"""The blocks of a model: what each can be given, what that costs, and the choice at a share of the budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

from torch import Tensor

from dendrofx.graph.record import record_rows
from dendrofx.graph.sites import Refusal, Site
from dendrofx.machine.memory import collect_garbage
from dendrofx.request import Request
from dendrofx.rewriting.recipe import Recipe
from dendrofx.rewriting.rewrite import use_exact
from dendrofx.search.autotune import Tuning
from dendrofx.search.choice import Choice
from dendrofx.search.choose import PROBE_ROWS, Candidate
from dendrofx.search.estimates import CostEstimate, ExactForm, cheapest
from dendrofx.search.explore import MANY_SITES, explore
from dendrofx.search.explored import Explored
from dendrofx.search.split import Option, split
from dendrofx.search.timer import Timer, interruptible
from dendrofx.subject import Subject
from dendrofx.values.counts import Counts, of_sites, site_activity
from dendrofx.values.covered import Covered, cover, covered_by

# Shares of the budget at which the branches of several sites are chosen and tried together.
BUDGET_SHARES = (4.0, 2.0, 1.0, 0.5, 0.25)
# Parts of the budget that a site can be given, in steps of sqrt(2).
PARTS = tuple(2.0 ** (step / 2) for step in range(-10, 7))
# The walks of models of many sites, which run the model once a step, take fewer steps.
FEWER = 4


@dataclass(frozen=True)
class BlockSpace:
    """What the blocks of a model can be given, and what it costs.

    Attributes:
        subject: the model.
        request: what was asked for.
        covered: the outputs that are measured; None where none is.
        explored: the candidates of every site.
        tuning: their prices.
    """

    subject: Subject
    request: Request
    covered: Covered | None
    explored: Explored
    tuning: Tuning

    @staticmethod
    def explored_by(
        subject: Subject, request: Request, timer: Timer | None, covered: Covered | None = None
    ) -> BlockSpace:
        """Fit the candidates of every site, and time them where there is a timer; `covered` where that is known already."""
        covered = covered or covered_outputs(subject, request)
        explored = explore(subject, request, covered, interruptible(timer), shortlisted=True)
        collect_garbage()
        tuning = Tuning(explored, request, batch_sizes(request, subject))
        if timer is not None and (subject.data is not None or (request.exact and subject.example is not None)):
            tuning = tuning.timed(subject.graph, subject.sites, timer)
        collect_garbage()
        return BlockSpace(subject, request, covered, explored, tuning)

    @property
    def sites(self) -> Sequence[Site]:
        """The selected sites."""
        return self.subject.sites

    def only(self, choice: Choice) -> BlockSpace:
        """Return the space of what is chosen: on large models the other candidates, and the rows, weigh as much as the model."""
        rows = self.explored.rows if self.subject.data is None else {}
        explored = self.explored.only(choice.chosen, rows)
        return replace(self, explored=explored, tuning=self.tuning.only(explored))

    def rows(self, sites: Sequence[Site]) -> Mapping[str, Tensor]:
        """Return rows that reach sites, to time them on; those that were dropped are recorded again."""
        data, known = self.subject.data, self.explored.rows
        if data is None or all(s.name in known for s in sites):
            return known
        return record_rows(self.subject.graph, sites, data.choose, self.request.seed).rows

    def choose(self, share: float, even: bool = False) -> Choice:
        """Return each site's cheapest candidate at its part of `share` of the budget, or why it is refused; see `parts`."""
        chosen: dict[str, Candidate] = {}
        prices: dict[str, CostEstimate] = {}
        refused = {r.site: r for r in self.subject.sites.refused} | dict(self.explored.refused)
        parts = self.parts(share, even)
        for site in self._explored_sites:
            best = self._cheapest(site, parts[site.name] or self.tuning.even_part(share))
            if best is not None:
                prices[site.name] = best
            if best is not None and parts[site.name] > 0 and (best.pays or not self.request.decide):
                chosen[site.name] = best.candidate
                continue
            refused[site.name] = Refusal(site.name, self._too_dear(best), site.nodes[-1])
        return Choice(chosen, prices, refused, self.request.exact)

    def parts(self, share: float, even: bool = False) -> dict[str, float]:
        """Return each site's part of `share` of the budget, as deviation of the model's output; 0 leaves it as it is.

        The parts are those at which all sites together cost least (`split.py`); even ones where they are asked for, without data,
        and where every site is to be routed.
        """
        names = [s.name for s in self._explored_sites]
        if even or len(names) < 2 or self.subject.data is None or not self.request.decide:
            return dict.fromkeys(names, self.tuning.even_part(share))
        taken = split(self._options, share * self.request.start)
        return {name: self._options[name][index].harm for name, index in taken.items()}

    @cached_property
    def _options(self) -> dict[str, list[Option]]:
        """By site, what it costs at parts of the budget from next to nothing to more than all of it."""
        found: dict[str, list[Option]] = {}
        for site in self._explored_sites:
            block = self.tuning.block_cost(site)
            found[site.name] = [Option(block, 0.0)]
            for part in (step * self.request.start for step in PARTS):
                best = self._cheapest(site, part)
                if best is not None and best.pays:
                    found[site.name].append(Option(block * best.cost, part))
        return found

    @property
    def _explored_sites(self) -> list[Site]:
        return [s for s in self.sites if s.name in self.explored.found]

    def _cheapest(self, site: Site, part: float) -> CostEstimate | None:
        """Return the price of a site's cheapest candidate at a part of the budget; None where none has a price."""
        known = self.tuning.known(site.name)
        return cheapest([self.price(site, c, self.activity(site, c, part)) for c in known]) if known else None

    def _too_dear(self, best: CostEstimate | None) -> str:
        """Say why the cheapest candidate of a site is not taken."""
        if best is None:
            return "not timed: tuning was interrupted or out of time (tune_seconds) before its turn"
        where = (
            "calibration rows" if self.subject.data is not None else "standard normal probe rows (no data was given)"
        )
        branches = best.candidate.branches
        forms = f"{branches.light_form} with {branches.gate_form}"
        if best.pays:
            return f"other sites save more with its part of the budget: here the cheapest, {forms}, {best} on {where}"
        return f"no light form pays: the cheapest, {forms}, {best} within the budget on {where}"

    def activity(self, site: Site, candidate: Candidate, part: float) -> float:
        """Return the activity that a candidate needs within a part of the budget; see `parts`."""
        if self.subject.data is None:
            return float((~(candidate.score < self.request.max_deviation)).double().mean())
        return candidate.activity_at(part * self.explored.weights[site.name])

    def price(self, site: Site, candidate: Candidate, activity: float, settled: bool = False) -> CostEstimate:
        """Return what a candidate costs; a settled one keeps its full branch."""
        return self.tuning.price(site.name, candidate, activity, settled)

    def cost(self, choice: Choice, counts: Counts) -> float:
        """Return the cost of all explored sites over that of their blocks; a site without counts runs its block."""
        blocks = {s.name: self.tuning.block_cost(s) for s in self._explored_sites}
        costs = {
            n: self.tuning.price(n, choice.chosen[n], site_activity(c), settled=True).cost
            for n, c in of_sites(counts).items()
        }
        return sum(b * costs.get(n, 1.0) for n, b in blocks.items()) / sum(blocks.values())

    def exact_forms(self, choice: Choice) -> dict[str, ExactForm]:
        """Return by name the exact forms of the sites that are not routed."""
        if not choice.exact:
            return {}
        found = {s.name: self.tuning.exact_form(s.name) for s in self.sites if s.name not in choice.chosen}
        return {name: form for name, form in found.items() if form is not None}

    def recipe(self, choice: Choice) -> Recipe:
        """Return what the module of a choice is made from."""
        forms = self.exact_forms(choice)
        exact = [s for s in self.sites if s.name in forms]
        graph = use_exact(self.subject.graph, exact, {name: form.module for name, form in forms.items()})
        weights = {n: self.explored.weights[n] for n in choice.chosen}
        scores = {n: c.score / weights[n] for n, c in choice.chosen.items()}
        branches = {n: c.branches for n, c in choice.chosen.items()}
        return Recipe(graph, tuple(s for s in self.sites if s.name in branches), branches, scores, weights)

    def steps(self, steps: int) -> int:
        """Return how many steps a walk or another search takes."""
        return steps if len(self.sites) <= MANY_SITES else steps // FEWER


def covered_outputs(subject: Subject, request: Request) -> Covered | None:
    """Return the outputs that are measured; None where none is.

    Raises:
        InputError: an output that is covered is not per sample.
    """
    measured = len(subject.sites) > 0 and request.max_deviation > 0
    if subject.data is None or not (measured or request.output is not None):
        return None
    budget, batches = request.budget, subject.data.fit
    if budget is not None:
        return covered_by(subject.graph, batches, budget.cover, strict=True)
    return covered_by(subject.graph, batches, partial(cover, asked=request.output), strict=False)


def batch_sizes(request: Request, subject: Subject) -> tuple[int, ...]:
    """Return samples per call that the decision is taken for, ascending."""
    data, example = subject.data, subject.example
    seen = data.sizes if data is not None else (example.samples,) if example is not None else (PROBE_ROWS,)
    few = tuple(sorted({seen[0], seen[len(seen) // 2], seen[-1]}))
    return request.batch_sizes or few
