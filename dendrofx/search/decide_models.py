"""Deciding at model scope: samples are routed between a light model and the original, within a budget to certify.

Settings are searched on samples that fitted nothing, tested on others, and the fastest accepted one is timed against the original.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import fx

from dendrofx.graph.find_sites import without_linears
from dendrofx.guarantee.path import paths
from dendrofx.guarantee.settings import Setting, fastest, kept, walk_all
from dendrofx.light import LightForm
from dendrofx.plan.entries import DeadRowsPlan, SitePlan
from dendrofx.plan.plan import CascadePlan, Plan
from dendrofx.plan.tail import TailPlan
from dendrofx.plan.times import ModelTimes, threads_plan
from dendrofx.request import Request
from dendrofx.rewriting.rewrite import rewrite
from dendrofx.search.cascade.fulls import FullModel
from dendrofx.search.cascade.lights import LightModel
from dendrofx.search.cascade.models import ModelSpace
from dendrofx.search.cascade.priced import model_settings
from dendrofx.search.cascade.recipes import cascade_recipe
from dendrofx.search.cascade.search import Gated, tested
from dendrofx.search.cascade.timed import fastest_of
from dendrofx.search.certify import certified, warn_of_duplicates
from dendrofx.search.decision import Decision
from dendrofx.search.raced import INTERRUPTED, raced, verdict
from dendrofx.search.timer import Timer, interruptible
from dendrofx.subject import Subject
from dendrofx.values.counts import CASCADE
from dendrofx.values.fingerprint import data_fingerprint
from dendrofx.values.meta import CAPTURE


def decide_models(subject: Subject, request: Request, timer: Timer | None) -> Decision:
    """Route samples between a light model and the original.

    Args:
        subject: its graph on live rows, where the caller named a mask.
        request: with a budget.
        timer: what times; None decides by counted cost.
    """
    assert subject.data is not None
    assert request.budget is not None
    warn_of_duplicates(subject.data.test)
    space = ModelSpace.fitted(subject, request, request.budget, timer)
    walked, found = _tested(space, timer)
    times: tuple[ModelTimes, ...] = ()
    if isinstance(found, Setting) and request.decide and timer is not None:
        found = fastest_of(space, kept(walked, request.max_sample_deviation), timer)
        times, reason = race_of(space, found, timer)
        found = found if reason is None else reason
    if isinstance(found, str):
        full_times, why = ((), found) if found == INTERRUPTED else _full_alone(space, timer)
        decision = _refused(space, found, why, plan_of(space, full_times or times, timer))
        plan = replace(decision.plan, dead_rows=subject.dead, repeated_rows=subject.repeats)
    else:
        plan = plan_of(space, times, timer)
    made = cascade_settings(space, plan, walked)
    decision = decision if isinstance(found, str) else made.decided(found)
    return replace(decision, walked=tuple(walked), settings=made)


def cascade_settings(space: ModelSpace, plan: Plan, walked: Sequence[Setting]) -> CascadeSettings:
    """Return what decides for the settings of a cascade; `plan` is what their plans have in common, see `plan_of`."""
    return CascadeSettings(space.stripped(), plan, tuple(walked), data_fingerprint(space.proved.data.test))


def race_of(space: ModelSpace, setting: Setting, timer: Timer) -> tuple[tuple[ModelTimes, ...], str | None]:
    """Time a setting's cascade against the original; return the times, and why it lost, if it did."""
    recipe = cascade_recipe(space, setting.source)
    return _raced(space, lambda: recipe.build(setting.tolerances), timer, "the cascade")


def _tested(space: ModelSpace, timer: Timer | None) -> tuple[list[Setting], Setting | str]:
    """Return the settings that were tested, in order, and the fastest accepted one or why there is none."""
    if space.missing:
        return [], space.missing
    worth = paths_of(space, model_settings(space, timer))
    if not worth:
        limited = "" if space.request.max_sample_deviation is None else ", within max_sample_deviation,"
        return [], f"no light model with a gate is predicted to be{limited} faster than the original"
    with torch.no_grad():
        walked = walk_all(worth, lambda s: tested(s, space.budget), partial(interruptible, timer))
    return walked, fastest(walked, space.budget, space.request.max_sample_deviation)


def paths_of(space: ModelSpace, found: Sequence[Setting]) -> list[list[Setting]]:
    """Return the paths of settings to test."""
    samples = space.proved.data.samples
    return paths(found, most_cost(space.request), space.budget, samples[4], samples[2] + samples[3])


def most_cost(request: Request) -> float:
    """Return the cost from which a setting is not worth a test."""
    return 1 / request.min_speedup if request.decide else float("inf")


def _raced(
    space: ModelSpace, build: Callable[[], fx.GraphModule], timer: Timer, what: str
) -> tuple[tuple[ModelTimes, ...], str | None]:
    """Build a module and time it against the original; why it (`what`) lost, if it did."""
    original, samples = space.proved.subject.original, space.proved.data.test
    return verdict(
        lambda: raced(original, build(), samples, space.sizes, timer), timer, space.request.min_speedup, what
    )


def _full_alone(space: ModelSpace, timer: Timer | None) -> tuple[tuple[ModelTimes, ...], str | None]:
    """Return, without a cascade, the times of the full model alone and why it does not win; None where it does."""
    request, subject = space.request, space.proved.subject
    named = request.full is not None or request.full_model is not None
    if named or (not space.full.exact and subject.graph is subject.original):
        return (), "not tried without the cascade, for full= was named"
    if timer is None or not request.decide:
        return (), None
    return _raced(space, lambda: space.full.module, timer, space.proved.subject.alone)


def plan_of(space: ModelSpace, times: Sequence[ModelTimes], timer: Timer | None) -> Plan:
    """Return what all plans of a space have in common."""
    proved = space.proved
    subject, covered = proved.subject, proved.covered
    return Plan(
        [],
        space.request.max_deviation,
        samples=proved.data.samples,
        models=list(times),
        origin=subject.origin(space.request, space.sizes),
        capture=str(subject.original.meta.get(CAPTURE, "")),
        dead_rows=subject.dead,
        repeated_rows=subject.repeats,
        budget=str(space.budget),
        outputs=dict.fromkeys(covered.covered),
        not_covered=list(covered.left),
        tail=None if space.request.max_sample_deviation is None else TailPlan(space.request.max_sample_deviation),
        timing="" if timer is None else "; ".join(timer.notes),
        threads=threads_plan(times, space.request.min_speedup),
        no_sites="" if len(subject.sites) else without_linears(subject.original),
    )


def _refused(space: ModelSpace, reason: str, full_lost: str | None, plan: Plan) -> Decision:
    """Return what is left without a cascade: the original, on live rows and in exact forms where these win."""
    subject, wins = space.proved.subject, full_lost is None
    dead, repeats = plan.dead_rows, plan.repeated_rows
    if dead is not None and not wins:
        dead = DeadRowsPlan(dead.mask, "refused", full_lost or "")
    if repeats is not None and not wins:
        repeats = replace(repeats, status="refused", reason=full_lost or "")
    plan = replace(
        plan,
        sites=_entries(space, None, space.full if wins else None),
        dead_rows=dead,
        repeated_rows=repeats,
        cascade=CascadePlan("refused", reason),
        refusal=reason,
    )
    return Decision(rewrite(space.full.module if wins else subject.original, [], {}), None, plan)


def _entries(space: ModelSpace, light: LightModel | None, full: FullModel | None) -> list[SitePlan]:
    """Return a line per site: what it is in the light and in the full model, where there are such."""
    lights: Mapping[str, LightForm] = {} if light is None else {n: b.light_form for n, b in light.branches.items()}
    inside = light is not None and light.plan is not None
    reason = "routed in the light model" if inside else "in the light model"
    entries = []
    for site in space.proved.subject.sites:
        exact = None if full is None else full.exact.get(site.name)
        form = exact.form if exact is not None else None if full is None else full.light.get(site.name)
        if site.name in lights:
            entries.append(SitePlan(site.name, "light", reason, site.shape, light=lights[site.name], full=form))
        elif exact is not None:
            entries.append(SitePlan(site.name, "exact", "in the full model", site.shape, full=form))
        elif form is not None:
            entries.append(SitePlan(site.name, "light", "in the full model", site.shape, full=form))
        else:
            entries.append(SitePlan(site.name, "refused", "as it was in every model", site.shape))
    return entries


@dataclass(frozen=True)
class CascadeSettings:
    """What decides for the settings of a cascade.

    Attributes:
        space: without calibration.
        plan: what their plans have in common.
        walked: the tested settings, in order.
        inputs: fingerprint of the test samples.
    """

    space: ModelSpace
    plan: Plan
    walked: tuple[Setting, ...]
    inputs: str

    def decided(self, setting: Setting) -> Decision:
        """Return the decision for a setting that was accepted, with a certificate of its own."""
        space, pair = self.space, setting.source
        assert isinstance(pair, Gated)
        recipe = cascade_recipe(space, pair)
        module = recipe.build(setting.tolerances)
        model, covered = space.proved.subject.model, space.proved.covered
        shown = certified(module, self.walked, setting, space.budget, covered, self.inputs, model)
        last = pair.light if pair.later is None else pair.later.light
        full, leaves = space.full_of(pair.full), last.exit
        cascade = CascadePlan(
            "routed",
            "",
            last.name if leaves is None else str(leaves),
            pair.form,
            space.request.full_model or space.request.full,
            setting.tolerances[CASCADE],
            1 - setting.easy_share,
            pair.skill.value,
            None if pair.margin_skill is None else pair.margin_skill.value,
            setting.cost,
            sum(s.accepted for s in self.walked),
            pair.light.plan,
            full.plan,
            leaves,
            full.name if full.light else "",
        )
        entries = _entries(space, pair.light, full)
        plan = replace(
            self.plan, sites=entries, cascade=cascade, refusal="", certificate=shown, tail=self._tail(setting)
        )
        return Decision(module, recipe, plan)

    def _tail(self, setting: Setting) -> TailPlan | None:
        """Return what samples deviate by at most with a setting in force."""
        return None if self.plan.tail is None else self.plan.tail.of(setting, self.plan.samples)
