"""Deciding on a budget alone: rows of blocks, light models, exits and full models in light forms compete.

search     blocks are searched as at block scope, models as at model scope; each gives settings with a risk and a cost
test       the settings of both are put into common paths, fixed before a test sample is seen: a path of each kind would be two
           tests of the same samples at full delta
race       of each family, what runs fastest of its cheapest accepted settings is raced against the original, and the faster
           one is taken

Where samples depend on each other, or the graph has no symbolic shapes, blocks are searched alone, and the plan says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch

from dendrofx.errors import InputError
from dendrofx.guarantee.budget import Budget
from dendrofx.guarantee.path import paths
from dendrofx.guarantee.settings import Setting, fastest, kept, walk_all
from dendrofx.request import Request
from dendrofx.search import decide_blocks, decide_models
from dendrofx.search.cascade.models import ModelSpace
from dendrofx.search.cascade.search import Gated
from dendrofx.search.certify import warn_of_duplicates
from dendrofx.search.decision import Decision, Settings
from dendrofx.search.families import BLOCKS, MODELS, Blocks, Family, Models, Times
from dendrofx.search.remembered import Remembered, is_remembering, remembering
from dendrofx.search.timer import Timer, interruptible
from dendrofx.subject import Subject

INTERRUPTED = "tuning was interrupted before {} were searched"
NOTHING = "no setting of blocks or models is predicted to be faster than the original"


@dataclass(frozen=True)
class Either:
    """What decides for the settings of several families: each one's own."""

    blocks: Settings | None
    models: Settings | None

    def decided(self, setting: Setting) -> Decision:
        """Return the decision for a setting that was accepted."""
        own = self.models if isinstance(setting.source, Gated) else self.blocks
        assert own is not None
        return own.decided(setting)


def decide_auto(subject: Subject, request: Request, timer: Timer | None) -> Decision:
    """Take the fastest certified setting that wins against the original, whatever it routes.

    Args:
        subject: its graph on live rows, where the caller named a mask.
        request: with a budget.
        timer: what times; None decides by counted cost.
    """
    budget = request.budget
    assert budget is not None
    assert subject.data is not None
    with nullcontext() if is_remembering() else remembering(Remembered()):
        space, raced = decide_blocks.search(subject, request, timer)
        if raced.lost is not None:
            return decide_auto(subject.on_all_rows(raced.lost, request.sites), request, timer)
        warn_of_duplicates(subject.data.test)
        blocks = Blocks(space, raced, budget, timer)
        models: Models | str = INTERRUPTED.format(MODELS)
        with interruptible(timer):
            models = _models(subject, request, budget, timer)
    families: dict[str, Family] = {BLOCKS: blocks}
    if isinstance(models, Models):
        families[MODELS] = models
    decision = _decided(families, request, budget, timer, subject.data.samples)
    if isinstance(models, str):
        decision = replace(decision, plan=replace(decision.plan, rivals=f"samples are not routed: {models}"))
    return decision


def _models(subject: Subject, request: Request, budget: Budget, timer: Timer | None) -> Models | str:
    """Return the settings of models, or why there are none."""
    if subject.unshaped:
        return subject.unshaped
    try:
        return Models(ModelSpace.fitted(subject, request, budget, timer), timer)
    except InputError as error:
        return str(error).removeprefix("scope='model' ")


def _decided(
    families: Mapping[str, Family], request: Request, budget: Budget, timer: Timer | None, samples: Sequence[int]
) -> Decision:
    """Walk common paths through all families, and race the fastest of each."""
    owner: dict[int, Family] = {}
    found: list[Setting] = []
    for family in families.values():
        with interruptible(timer):
            for setting in family.settings():
                owner[id(setting.source)] = family
                found.append(setting)
    worth = paths(found, decide_models.most_cost(request), budget, samples[4], samples[2] + samples[3])
    with torch.no_grad():
        walked = walk_all(worth, lambda s: owner[id(s.source)].tested(s), partial(interruptible, timer))
    best = fastest(walked, budget, request.max_sample_deviation) if worth else NOTHING
    if isinstance(best, str):
        return families[BLOCKS].decision(best, walked, ())
    owned = [
        (family, [s for s in kept(walked, request.max_sample_deviation) if owner[id(s.source)] is family])
        for family in families.values()
    ]
    raced = [_raced(family, own, timer if request.decide else None) for family, own in owned if own]
    if not any(rival.lost is None for rival in raced):
        return families[BLOCKS].decision("; ".join(dict.fromkeys(str(r.lost) for r in raced)), walked, ())
    return _fastest([rival for rival in raced if rival.lost is None], families, walked)


@dataclass(frozen=True)
class Rival:
    """A family's fastest accepted setting.

    Attributes:
        speed: over the original's, at the batch size where it is least.
        lost: why it is not faster than the original; None where it is.
    """

    family: Family
    setting: Setting
    speed: float
    times: Times = ()
    lost: str | None = None


def _raced(family: Family, own: Sequence[Setting], timer: Timer | None) -> Rival:
    """Race the fastest of a family's accepted settings."""
    setting = min(own, key=lambda s: s.cost)
    if timer is None:
        return Rival(family, setting, 1 / setting.cost)
    setting = family.fastest(own, timer)
    times, lost = family.race(setting, timer)
    return Rival(family, setting, min((t.speedup for t in times), default=1 / setting.cost), times, lost)


def _fastest(winners: Sequence[Rival], families: Mapping[str, Family], walked: Sequence[Setting]) -> Decision:
    """Return the decision of the fastest family, with what the best of each gains, and settings of all of them."""
    made = {w.family.name: w.family.decision(w.setting, walked, w.times) for w in winners}
    decision = made[max(winners, key=lambda w: w.speed).family.name]
    said = ", ".join(f"{w.family.name} {w.speed:.2f} x" for w in winners)
    plan = replace(decision.plan, rivals=f"the best certified setting of {said}" if len(winners) > 1 else "")
    own = {name: None if name not in made else made[name].settings for name in (BLOCKS, MODELS)}
    both = all(own[name] is not None for name in families)
    return replace(decision, plan=plan, settings=Either(own[BLOCKS], own[MODELS]) if both else decision.settings)
