"""The search for a cascade: light models, gates and thresholds, on samples that fitted none of them.

A sample's loss in a cascade is that of the light model where it is easy and that of the full model where it is not, so one run of
each model on the search samples gives the risk of every gate at every threshold. Few samples flip, and many settings lose nothing
on them; the estimated risk is therefore the mean of what was seen and of what is expected of samples like these, which tells safe
settings from safer ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from dendrofx.gates import AlwaysLight, GateForm
from dendrofx.gates.form import ModelRows
from dendrofx.gates.model import margin_losses, moved_margins
from dendrofx.guarantee.budget import Budget
from dendrofx.guarantee.metrics import expected_beyond, relative_distance
from dendrofx.guarantee.sequence import tested_step
from dendrofx.guarantee.settings import Setting
from dendrofx.runtime.model_scores import decision_margin, flip_probability
from dendrofx.search.cascade.costs import CallTimes
from dendrofx.search.cascade.lights import LightModel
from dendrofx.search.cascade.outputs import Sets
from dendrofx.values.counts import CASCADE
from dendrofx.values.skill import Skill, router_skill

STEPS = 128
ORIGINAL = "the original"
# Lost samples that an estimated risk is off by, see `Setting.off`. What takes samples in doubt to the original is estimated well; a
# light model that answers alone was chosen for losing nothing. Measured on 12 draws of the digits, 83,000 settings: of the former
# with a risk below 1e-3 none of 300 test samples was lost in 80 to 100 %, of the latter in 64 %.
SURE, UNSURE = 0.05, 0.3
LARGEST = 1e29  # a threshold above every score of a sample that was judged


@dataclass(frozen=True)
class Gated:
    """A light model with a gate, and what samples in doubt run.

    Attributes:
        light: the light model.
        full: the name of the full model.
        form, gate: the gate's form and module.
        scores: of the search samples and of the test samples, f32[N].
        losses: of the light outputs, likewise, f64[N].
        full_losses: of the full model's outputs, likewise; about zero.
        far: deviations of the light outputs, likewise, f64[N]; full_far: of the full model's.
        expected: f64[N] each, what each search sample would lose if it were drawn again, light and full, see `expected_flips`; for
            other metrics than decisions the gate's own estimate, where it has one, and what the full model lost.
        skill: router skill on the search samples, and on the margin loss where the budget is about decisions.
        later: a second exit, at the same threshold, for the samples in doubt.
    """

    light: LightModel
    full: str
    form: GateForm
    gate: nn.Module
    scores: tuple[Tensor, Tensor]
    losses: tuple[Tensor, Tensor]
    full_losses: tuple[Tensor, Tensor]
    far: tuple[Tensor, Tensor]
    full_far: tuple[Tensor, Tensor]
    expected: tuple[Tensor, Tensor]
    skill: Skill
    margin_skill: Skill | None
    later: Gated | None = None

    @property
    def has_net(self) -> bool:
        """Whether samples in doubt run the original."""
        return self.full == ORIGINAL and not isinstance(self.form, AlwaysLight)

    def losses_at(self, threshold: float, which: int) -> tuple[Tensor, Tensor]:
        """Losses at a threshold, and which samples are easy."""
        easy = self.scores[which] < threshold
        rest = self.full_losses[which] if self.later is None else self.later.losses_at(threshold, which)[0]
        return torch.where(easy, self.losses[which], rest), easy

    def largest_at(self, threshold: float, which: int) -> float:
        """Return the largest deviation of a sample at a threshold."""
        return float(self._far_at(threshold, which).max())

    def _far_at(self, threshold: float, which: int) -> Tensor:
        rest = self.full_far[which] if self.later is None else self.later._far_at(threshold, which)
        return torch.where(self.scores[which] < threshold, self.far[which], rest)

    def expected_at(self, threshold: float) -> Tensor:
        """Return what the search samples are expected to lose."""
        rest = self.expected[1] if self.later is None else self.later.expected_at(threshold)
        return torch.where(self.scores[0] < threshold, self.expected[0], rest)

    def goes_on(self, threshold: float) -> list[float]:
        """Return the share of search samples that are in doubt at each exit; none of n seen is not none at all, but by a gate."""
        if isinstance(self.form, AlwaysLight):
            return [0.0]
        hard, found = torch.ones_like(self.scores[0], dtype=torch.bool), []
        stage: Gated | None = self
        while stage is not None:
            hard = hard & ~(stage.scores[0] < threshold)
            found.append((int(hard.sum()) + 0.5) / (len(hard) + 1))
            stage = stage.later
        return found


def gated(
    light: LightModel,
    form: GateForm,
    outputs: Sets,
    fulls: Mapping[str, Sets],
    reference: Sets,
    budget: Budget,
    seed: int,
) -> list[Gated]:
    """Fit one gate to one light model; return it with every full model that it may go with.

    Args:
        light: the light model.
        form: of the gate.
        outputs: of the light model.
        fulls: outputs of the full models, by name.
        reference: of the original.
        budget: to keep.
        seed: of skills' intervals.

    Raises:
        InputError: the gate does not fit the budget or the outputs.
    """
    losses = [budget.losses(getattr(reference, s), getattr(outputs, s)) for s in ("gate", "search", "test")]
    gate = form.fit(ModelRows(outputs.gate, reference.gate, losses[0], budget.is_decision)).eval()
    with torch.no_grad():
        scores = [gate(outputs.search), gate(outputs.test)]
    margin, far = None, _distances(outputs, reference)
    if budget.is_decision:
        margin = router_skill(scores[0], margin_losses(reference.search, outputs.search).float(), seed, resamples=0)
    skill = router_skill(scores[0], losses[1].float(), seed, resamples=0)
    found = []
    for name, full in fulls.items():
        if light.of not in ("", name) or light.name == name:  # an exit goes on in its own; none doubts itself
            continue
        lost = [budget.losses(getattr(reference, s), getattr(full, s)) for s in ("search", "test")]
        full_far = _distances(full, reference)
        own = losses[1].double() if isinstance(form, AlwaysLight) else scores[0].double().clamp(0, 1)
        expected = _expected(budget, outputs, reference, far[0], own)
        again = lost[0].double()
        full_expected = again if name == ORIGINAL else _expected(budget, full, reference, full_far[0], again)
        made = Gated(
            light=light,
            full=name,
            form=form,
            gate=gate,
            scores=(scores[0], scores[1]),
            losses=(losses[1], losses[2]),
            full_losses=(lost[0], lost[1]),
            far=far,
            full_far=full_far,
            expected=(expected, full_expected),
            skill=skill,
            margin_skill=margin,
        )
        found.append(made)
    return found


def _distances(outputs: Sets, reference: Sets) -> tuple[Tensor, Tensor]:
    """Return f64[N] each, what the outputs of search and test samples deviate by."""
    search, test = (relative_distance(getattr(reference, s), getattr(outputs, s)) for s in ("search", "test"))
    return search, test


def _expected(budget: Budget, outputs: Sets, reference: Sets, far: Tensor, otherwise: Tensor) -> Tensor:
    """Return f64[N]: what each search sample would lose if it were drawn again, where the budget's losses are 0 or 1."""
    if budget.is_decision:
        return expected_flips(outputs, reference)
    if budget.beyond is not None:
        return expected_beyond(far[:, None], budget.beyond)[:, 0]
    return otherwise


def expected_flips(outputs: Sets, reference: Sets) -> Tensor:
    """Return f64[N]: the probability that a search sample of this margin flips.

    By a kernel estimate of what the model moves margins by: a sample that moved far says that others like it may.

    Args:
        outputs: of the model.
        reference: of the original.
    """
    both = [torch.cat([of.gate, of.search]) for of in (outputs, reference)]
    moved = moved_margins(ModelRows(both[0], both[1], torch.zeros(len(both[0])), True))
    moved = moved[moved.isfinite()]
    width = 1.06 * moved.std() * len(moved) ** -0.2  # Silverman's rule
    margin = decision_margin(outputs.search).double()
    return flip_probability(margin[:, None] + moved[None], width.clamp_min(1e-12)).mean(1)


def settings(found: Gated, times: Sequence[CallTimes], most: float | None = None) -> list[Setting]:
    """Return a light model with a gate at thresholds from nearly all samples in doubt to none, even in activity.

    Args:
        found: the pair.
        times: at each batch size.
        most: that a sample of the search may deviate by; None for any.
    """
    scores = found.scores[0].double()
    made = []
    for threshold in thresholds(scores):
        largest = found.largest_at(threshold, 0)
        if most is not None and not largest <= most:
            continue
        losses, easy = found.losses_at(threshold, 0)
        expected = found.expected_at(threshold)
        hard = int((~easy).sum())
        cost = float(np.mean([t.cost(found, threshold) for t in times]))
        risk = float((losses + expected).mean()) / 2
        last = found.light if found.later is None else found.later.light
        name = f"{last.exit or last.name} with {found.form}"
        name += f", then {found.full}" if found.full != ORIGINAL else ""
        activity = hard / len(scores)
        setting = Setting(name, {CASCADE: threshold}, risk, cost, activity, found, largest=(largest, None))
        made.append(replace(setting, kin=found.light.name, off=SURE if found.has_net else UNSURE))
    return made


def tested(setting: Setting, budget: Budget) -> Setting:
    """Return a setting with what the test samples say."""
    found, threshold = setting.source, setting.tolerances[CASCADE]
    losses, easy = found.losses_at(threshold, 1)
    share, largest = float(easy.double().mean()), (setting.largest[0], found.largest_at(threshold, 1))
    return replace(setting, tested=tested_step(losses, budget), easy_share=share, largest=largest)


def thresholds(scores: Tensor, steps: int = STEPS) -> list[float]:
    """Between the scores, even in activity; the last just above the largest, so that samples unlike any seen are in doubt."""
    judged = scores[scores.isfinite() & (scores < LARGEST)].double().sort().values.unique()
    if not len(judged):
        return []
    between = (judged[1:] + judged[:-1]) / 2
    every = torch.cat([between, judged[-1:] * (1 + 1e-3) + 1e-30])
    picked = torch.linspace(0, len(every) - 1, min(steps, len(every)), dtype=torch.float64).round().long().unique()
    return [float(t) for t in every[picked]]
