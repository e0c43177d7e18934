"""The search for a cascade: light models, gates and thresholds, on samples that fitted none of them.

A sample's loss in a cascade is that of the light model where it is easy and that of the full model where it is not, so one run of
each model on the search samples gives the risk of every gate at every threshold. Few samples flip, and many settings lose nothing
on them; the estimated risk is therefore the mean of what was seen and of what is expected of samples like these, which tells safe
settings from safer ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, fx, nn

from dendrofx.errors import InputError
from dendrofx.gates import GateForm
from dendrofx.gates.form import ModelRows
from dendrofx.gates.model import margin_losses, moved_margins
from dendrofx.guarantee.budget import Budget
from dendrofx.guarantee.sequence import tested_step
from dendrofx.guarantee.settings import Setting
from dendrofx.runtime.model_scores import decision_margin, flip_probability
from dendrofx.search.cascade.lights import LightModel
from dendrofx.search.cost import WEIGHT_ROWS
from dendrofx.values.counts import CASCADE
from dendrofx.values.covered import Covered
from dendrofx.values.drop_in import graph_level
from dendrofx.values.inputs import Inputs
from dendrofx.values.skill import Skill, router_skill

STEPS = 128
LARGEST = 1e29  # a threshold above every score of a sample that was judged


@torch.no_grad()
def picks(module: fx.GraphModule, batches: Sequence[Inputs], covered: Covered) -> Tensor:
    """Return the one output that is covered, of all samples of batches whose shared inputs are marked: [N, ...].

    Raises:
        InputError: it has another shape in another batch.
    """
    found = [covered.pick(b.call(graph_level(module)), b.samples)[0] for b in batches]
    if len({t.shape[1:] for t in found}) > 1:
        raise InputError(
            "scope='model' needs an output with one shape per sample, such as logits or a pooled vector; the model's is shaped"
            f" {' and '.join(str(list(s)) for s in sorted({tuple(t.shape[1:]) for t in found}))}: name another with output="
        )
    return torch.cat(found)


@dataclass(frozen=True)
class Sets:
    """One model's outputs on the sets that it did not fit: gate, search and test, each [N, ...]."""

    gate: Tensor
    search: Tensor
    test: Tensor


@dataclass(frozen=True)
class Gated:
    """A light model with a gate.

    Attributes:
        light: the light model.
        form, gate: the gate's form and module.
        scores: of the search samples and of the test samples, f32[N].
        losses: of the light outputs, likewise, f64[N].
        full_losses: of the full model's outputs, likewise; about zero.
        expected: f64[N], what each search sample would lose if it were drawn again, see `expected_flips`; for other metrics than
            decisions the gate's own estimate.
        skill: router skill on the search samples, and on the margin loss where the budget is about decisions.
    """

    light: LightModel
    form: GateForm
    gate: nn.Module
    scores: tuple[Tensor, Tensor]
    losses: tuple[Tensor, Tensor]
    full_losses: tuple[Tensor, Tensor]
    expected: Tensor
    skill: Skill
    margin_skill: Skill | None

    def losses_at(self, threshold: float, which: int) -> tuple[Tensor, Tensor]:
        """Losses at a threshold, and which samples are easy."""
        easy = self.scores[which] < threshold
        return torch.where(easy, self.losses[which], self.full_losses[which]), easy


def gated(
    light: LightModel, form: GateForm, outputs: Sets, full: Sets, reference: Sets, budget: Budget, seed: int
) -> Gated:
    """Fit one gate to one light model.

    Raises:
        InputError: the gate does not fit the budget or the outputs.
    """
    losses = [budget.losses(getattr(reference, s), getattr(outputs, s)) for s in ("gate", "search", "test")]
    full_losses = [budget.losses(getattr(reference, s), getattr(full, s)) for s in ("search", "test")]
    gate = form.fit(ModelRows(outputs.gate, reference.gate, losses[0], budget.is_decision)).eval()
    with torch.no_grad():
        scores = [gate(outputs.search), gate(outputs.test)]
    margin, expected = None, scores[0].double().clamp(0, 1)
    if budget.is_decision:
        seen = ModelRows(
            torch.cat([outputs.gate, outputs.search]), torch.cat([reference.gate, reference.search]), losses[0], True
        )
        expected = expected_flips(decision_margin(outputs.search).double(), moved_margins(seen))
        margin = router_skill(scores[0], margin_losses(reference.search, outputs.search).float(), seed)
    skill = router_skill(scores[0], losses[1].float(), seed)
    return Gated(
        light,
        form,
        gate,
        (scores[0], scores[1]),
        (losses[1], losses[2]),
        (full_losses[0], full_losses[1]),
        expected,
        skill,
        margin,
    )


@dataclass(frozen=True)
class CallTimes:
    """What a call costs, at one batch size, over the original's call.

    Attributes:
        batch: samples.
        light: by light model.
        full: samples and cost of the full model, ascending.
    """

    batch: int
    light: dict[str, float]
    full: tuple[tuple[int, float], ...]

    def cost(self, light: str, activity: float) -> float:
        """Return the expected cost of a cascade in which each sample is in doubt with probability `activity`."""
        from scipy.stats import binom  # takes a second to import

        counts = np.arange(self.batch + 1)
        chance = binom.pmf(counts, self.batch, activity)
        full = np.interp(counts, [n for n, _ in self.full], [c for _, c in self.full])
        return self.light[light] + float((chance * np.where(counts > 0, full, 0.0)).sum())


def counted_times(lights: Sequence[LightModel], sizes: Sequence[int]) -> list[CallTimes]:
    """Return counted costs: multiply-adds, and for few samples what reading the weights takes; see `search/cost.py`."""
    return [
        CallTimes(
            size,
            {light.name: light.work for light in lights},
            tuple((n, (n + WEIGHT_ROWS) / (size + WEIGHT_ROWS)) for n in sorted({1, size})),
        )
        for size in sizes
    ]


def expected_flips(margin: Tensor, moved: Tensor) -> Tensor:
    """Return f64[N]: the probability that a sample of this margin flips, by a kernel estimate of what light models move margins by.

    Args:
        margin: f64[N], of the samples.
        moved: f64[M], by what the margins of samples like them moved. One that moved far says that others may.
    """
    moved = moved[moved.isfinite()]
    width = 1.06 * moved.std() * len(moved) ** -0.2  # Silverman's rule
    return flip_probability(margin[:, None] + moved[None], width.clamp_min(1e-12)).mean(1)


def settings(found: Gated, times: Sequence[CallTimes]) -> list[Setting]:
    """Return a light model with a gate at thresholds from nearly all samples in doubt to none, even in activity.

    Args:
        found: the pair.
        times: at each batch size.
    """
    scores = found.scores[0].double()
    made = []
    for threshold in thresholds(scores):
        losses, easy = found.losses_at(threshold, 0)
        expected = torch.where(easy, found.expected, 0.0)
        hard = int((~easy).sum())
        activity = (hard + 0.5) / (len(scores) + 1)  # none of n seen is not none at all
        cost = float(np.mean([t.cost(found.light.name, activity) for t in times]))
        risk = float((losses + expected).mean()) / 2
        name = f"{found.light.name} with {found.form}"
        made.append(Setting(name, {CASCADE: threshold}, risk, cost, hard / len(scores), found))
    return made


def tested(setting: Setting, budget: Budget) -> Setting:
    """Return a setting with what the test samples say."""
    losses, easy = setting.source.losses_at(setting.tolerances[CASCADE], 1)
    return replace(setting, tested=tested_step(losses, budget), easy_share=float(easy.double().mean()))


def thresholds(scores: Tensor, steps: int = STEPS) -> list[float]:
    """Between the scores, even in activity; the last just above the largest, so that samples unlike any seen are in doubt."""
    judged = scores[scores.isfinite() & (scores < LARGEST)].double().sort().values.unique()
    if not len(judged):
        return []
    between = (judged[1:] + judged[:-1]) / 2
    every = torch.cat([between, judged[-1:] * (1 + 1e-3) + 1e-30])
    picked = torch.linspace(0, len(every) - 1, min(steps, len(every)), dtype=torch.float64).round().long().unique()
    return [float(t) for t in every[picked]]
