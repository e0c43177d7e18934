"""Full models: what samples in doubt run.

The original, in exact forms where these are faster; or what the caller named; or a light model that decides as the original does,
on every sample that it could be tried on: a cascade of it is about as safe, and the original need not run at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import fx

from dendrofx.gates import AlwaysLight
from dendrofx.guarantee.budget import Budget
from dendrofx.light import LightForm
from dendrofx.plan.plan import Plan
from dendrofx.request import Request
from dendrofx.rewriting.rewrite import use_exact
from dendrofx.search.autotune import Tuning
from dendrofx.search.blocks import BlockSpace
from dendrofx.search.cascade.forms import with_forms
from dendrofx.search.cascade.lights import LightModel
from dendrofx.search.cascade.outputs import Sets
from dendrofx.search.cascade.proved import Proved
from dendrofx.search.cascade.routed import fit_routed
from dendrofx.search.cascade.search import ORIGINAL
from dendrofx.search.estimates import ExactForm
from dendrofx.search.explored import Explored
from dendrofx.search.timer import Timer

# The share of the limit that one of them may have lost.
DECISIVE = 1.0


@dataclass(frozen=True)
class FullModel:
    """What the samples in doubt run.

    Attributes:
        module: the original, in exact forms where these are faster, or in the form that the caller named, or in light forms that
            decide as it does.
        exact: by site the exact forms in it; light: the light ones, where these were found and not named.
        plan: of its sites, where they are routed.
        name: in words.
        work: multiply-adds of its sites, weighted by bits, over those of the original's.
    """

    module: fx.GraphModule
    exact: Mapping[str, ExactForm]
    plan: Plan | None = None
    name: str = ORIGINAL
    work: float = 1.0
    light: Mapping[str, LightForm] = field(default_factory=dict)


def full_model(proved: Proved, request: Request, blocks: BlockSpace, timer: Timer | None) -> FullModel:
    """Fit the full model."""
    base, sites = proved.subject.graph, proved.subject.sites
    if (named := request.full) is not None:
        forms = dict.fromkeys([s.name for s in sites], named)
        return FullModel(with_forms(base, sites, forms, proved.data, request.seed), {})
    if (inside := request.full_model) is not None:
        made = fit_routed(inside, proved.subject, request, proved.covered, timer)
        return FullModel(made.module, {}, made.plan)
    if timer is None:
        return FullModel(base, {})
    alone = Explored(rows=blocks.explored.rows, per_sample=blocks.explored.per_sample)
    tuning = Tuning(alone, replace(request, exact=True), blocks.tuning.sizes).timed(base, sites, timer)
    exact = {s.name: form for s in sites if (form := tuning.exact_form(s.name)) is not None}
    modules = {name: form.module for name, form in exact.items()}
    return FullModel(use_exact(base, [s for s in sites if s.name in exact], modules), exact)


def decisive(
    lights: Sequence[tuple[LightModel, Sets]], reference: Sets, budget: Budget, request: Request
) -> list[tuple[FullModel, Sets]]:
    """Return full models beside the original: the cheapest light models that lose little, and nothing, on samples of search."""
    # who names forms has the original as the full model, and who keeps all samples light needs none
    named = request.lights is not None or request.full is not None or request.full_model is not None
    if named or isinstance(request.gate, AlwaysLight) or not request.decide:
        return []
    found: dict[str, tuple[FullModel, Sets]] = {}
    samples = len(reference.gate) + len(reference.search)
    for most in (DECISIVE * budget.limit * samples, 0.0):
        for light, outputs in sorted(lights, key=lambda known: known[0].work):
            lost = sum(
                float(budget.losses(getattr(reference, s), getattr(outputs, s)).sum()) for s in ("gate", "search")
            )
            if lost <= most:
                forms = {name: b.light_form for name, b in light.branches.items()}
                found[light.name] = (FullModel(light.module, {}, None, light.name, light.work, forms), outputs)
                break
    return list(found.values())
