"""Light models: the whole model with a light branch at every site where one fits, and nothing recomputed.

One per light form, and some that choose a form per site: the cheapest within a share of an error budget. Those that leave early
are in `exits.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from dendrofx.graph.block import row_cost
from dendrofx.graph.sites import Site
from dendrofx.light import LightForm, Precision
from dendrofx.light.exits import Exit
from dendrofx.plan.plan import Plan
from dendrofx.rewriting.counted import graph_names
from dendrofx.rewriting.module import RoutedModule
from dendrofx.rewriting.rewrite import Branches, rewrite, without_gates
from dendrofx.rewriting.tolerances import set_tolerances
from dendrofx.search.blocks import BlockSpace
from dendrofx.search.choose import Candidate
from dendrofx.values.drop_in import graph_level
from dendrofx.values.inputs import Inputs

# Error budgets, as shares of the run's, at which sites choose for themselves.
SHARES = (16.0, 4.0, 1.0, 0.25)


@dataclass(frozen=True)
class LightModel:
    """A light model.

    Attributes:
        name: its forms, in words.
        branches: by site.
        module: always light, or with routed blocks.
        work: counted multiply-adds of its sites per sample, weighted by bits, over those of all sites' blocks.
        plan: of its sites, where its blocks are routed.
        exit: where it leaves early; rest: then what goes on from there, else None.
        of: the name of the full model that it is the beginning of; empty where it goes with any.
    """

    name: str
    branches: Mapping[str, Branches]
    module: RoutedModule
    work: float
    plan: Plan | None = None
    exit: Exit | None = None
    rest: Rest | None = None
    of: str = ""

    @property
    def is_low(self) -> bool:
        """Whether any of its products is in low precision."""
        forms = [b.light_form for b in self.branches.values()]
        return any(isinstance(f, Precision) or getattr(f, "precision", None) is not None for f in forms)


@dataclass(frozen=True)
class Rest:
    """What samples in doubt run behind an exit.

    Attributes:
        first: the model up to the cut, which gives the value there; module: what takes it, after the inputs.
        work: multiply-adds of `module` per sample, over the full model's.
    """

    first: RoutedModule
    module: RoutedModule
    work: float

    @torch.no_grad()
    def entered(self, batch: Inputs) -> Inputs:
        """Return what `module` takes for a batch."""
        known = {str(n.target) for n in self.first.graph.nodes if n.op == "placeholder"}
        plain = replace(
            batch, kwargs=tuple((k, v) for k, v in batch.kwargs if k in known)
        )  # it may stand at a cut already
        value = plain.call(graph_level(self.first))
        name = [str(n.target) for n in self.module.graph.nodes if n.op == "placeholder"][-1]
        return replace(batch, kwargs=(*batch.kwargs, (name, value)))


def light_models(space: BlockSpace) -> list[LightModel]:
    """Return all light models that the candidates of a space make, cheapest first; it was explored with `AlwaysLight` alone."""
    choices: dict[tuple[tuple[str, LightForm], ...], dict[str, Candidate]] = {}
    for form in dict.fromkeys(c.branches.light_form for found in space.explored.found.values() for c in found):
        _add(choices, {n: c for n, found in space.explored.found.items() if (c := _with_form(found, form)) is not None})
    for share in SHARES if len(space.explored.found) > 1 else ():
        _add(choices, {s.name: c for s in space.sites if (c := _cheapest_within(space, s, share)) is not None})
    made = [_made(space, choice) for choice in choices.values()]
    return sorted(made, key=lambda light: light.work)


def _add(choices: dict[tuple[tuple[str, LightForm], ...], dict[str, Candidate]], choice: dict[str, Candidate]) -> None:
    if choice:
        choices.setdefault(tuple((n, c.branches.light_form) for n, c in choice.items()), choice)


def _with_form(found: Sequence[Candidate], form: LightForm) -> Candidate | None:
    return next((c for c in found if c.branches.light_form == form), None)


def _cheapest_within(space: BlockSpace, site: Site, share: float) -> Candidate | None:
    """Return the candidate of a site with the least counted work, among those whose mean error keeps its part of the budget."""
    found = space.explored.found.get(site.name, ())
    budget = space.tuning.budget(site, share)
    kept = [c for c in found if float(c.error.mean()) <= budget]
    return min(kept, key=lambda c: c.macs.light) if kept else None


def _made(space: BlockSpace, choice: Mapping[str, Candidate]) -> LightModel:
    sites = [s for s in space.sites if s.name in choice]
    branches = {n: c.branches for n, c in choice.items()}
    module = without_gates(rewrite(space.subject.graph, sites, branches), list(branches), watched=False)
    set_tolerances(module, dict.fromkeys(graph_names(module).values(), 1.0))
    forms = dict.fromkeys(str(b.light_form) for b in branches.values())
    blocks = sum(s.macs for s in space.sites)
    saved = sum(s.macs - row_cost(branches[s.name].light).work for s in sites)
    name = next(iter(forms)) if len(forms) == 1 else f"{len(forms)} forms: {', '.join(forms)}"
    if len(sites) < len(space.sites) and len(space.sites) > 1:
        name += f" at {len(sites)} of {len(space.sites)} sites"
    return LightModel(name, branches, module, 1 - saved / max(blocks, 1))
