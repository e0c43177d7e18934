"""Gates at model scope: fitted to what the light model's outputs lose, in the budget's own terms."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dendrofx.errors import InputError
from dendrofx.gates.form import GateForm, ModelRows
from dendrofx.gates.ridge import fit_range, fit_weights
from dendrofx.graph.block import principal_directions
from dendrofx.runtime.model_scores import LearnedModelScore, MarginScore, decision_margin, flat_rows
from dendrofx.values.measure import deviation

# E log |N(0, 1)|: from the mean logarithm of an error to the logarithm of its standard deviation.
LOG_NORMAL = -0.6351814
DIRECTIONS = 8


@dataclass(frozen=True)
class MarginGate(GateForm):
    """The margin of the light model's decision, mapped to the probability that the original decides otherwise.

    The light model moves the gap between its first choice and the best other by d. With d taken as normal of standard deviation s,
    measured on calibration samples, the decision flips with probability Phi(-margin / s). All samples tell s, not the few flips.
    The order of the samples is that of their margins (C. Chow, "On optimum recognition error and reject tradeoff", IEEE
    Transactions on Information Theory 16, 1970).

    Example:
        >>> routed = dendrofx.transform(model, calibration=batches, budget=budget, scope="model", gate=dendrofx.MarginGate())
    """

    needs_rows = True

    @torch.no_grad()
    def fit_model(self, rows: ModelRows) -> nn.Module:
        """Measure s.

        Raises:
            InputError: the budget is not about decisions.
        """
        if not rows.decides:
            raise InputError(f"{self} reads decisions: for a budget of distances take LearnedGate()")
        moved = moved_margins(rows)
        moved = moved[moved.isfinite()]
        if len(moved) < 2:
            raise InputError("the model's outputs are not finite on calibration samples: no margin can be measured")
        return MarginScore(max(float(moved.square().mean().sqrt()), 1e-12))


def moved_margins(rows: ModelRows) -> Tensor:
    """Return f64[N]: what the full model's margin for the light decision differs by; of several decisions that of the least."""
    light, full = rows.light.double(), rows.full.double()
    if light.dim() == 1 or light.size(-1) == 1:
        light, full = flat_rows(light), flat_rows(full)
        at = light.abs().argmin(1, keepdim=True)
        sign = torch.where(light.gather(1, at) > 0, 1.0, -1.0)
        return (sign * (full - light).gather(1, at)).squeeze(1)
    light, full = (v.reshape(len(v), -1, v.size(-1)) for v in (light, full))
    first = light.argmax(-1, keepdim=True)
    gaps = [v.gather(-1, first).squeeze(-1) - v.scatter(-1, first, -math.inf).amax(-1) for v in (light, full)]
    at = gaps[0].argmin(1, keepdim=True)
    return (gaps[1] - gaps[0]).gather(1, at).squeeze(1)


@torch.no_grad()
def fit_learned(rows: ModelRows, directions: int, ridge: float | None) -> nn.Module:
    """Fit `LearnedGate` at model scope: to log |d| (see `MarginGate`) for decisions, to the log loss otherwise.

    Losses that are 0 or 1 say of no sample how near it came: it is fitted to the log deviation instead.
    """
    whole = flat_rows(rows.light).float().isfinite().all(1) & flat_rows(rows.full).float().isfinite().all(1)
    if int(whole.sum()) < 2:
        raise InputError(
            f"the model's outputs are not finite on {int((~whole).sum())} of {len(whole)} calibration samples"
        )
    rows = ModelRows(rows.light[whole], rows.full[whole], rows.losses[whole], rows.decides)
    flat = flat_rows(rows.light).float()
    unit = flat / flat.norm(dim=1, keepdim=True).clamp_min(1e-12)
    found = principal_directions(unit)[:, : min(directions, flat.size(1))].t()
    gate = LearnedModelScore(found, rows.decides)
    features = gate.features(rows.light)
    usable = features.isfinite().all(1)
    if int(usable.sum()) < 2:
        gate.scale.fill_(torch.inf)
        return gate
    fit_range(gate, features)
    fit_weights(gate, features[usable], _target(rows)[usable], ridge)
    if rows.decides:
        gate.offset.sub_(LOG_NORMAL)
    return gate


def _target(rows: ModelRows) -> Tensor:
    """Return f64[N]: what the learned gate predicts of each sample."""
    if rows.decides:
        return moved_margins(rows).abs()
    if bool(((rows.losses == 0) | (rows.losses == 1)).all()):
        return deviation(flat_rows(rows.full), flat_rows(rows.light))
    return rows.losses


def margin_losses(reference: Tensor, output: Tensor) -> Tensor:
    """Return a loss for router skill where flips are few: the share of the original's margin that is lost, f64[N] in [0, 1].

    Args:
        reference: logits of the original, f[N, ...].
        output: of the light model.
    """
    lost = -moved_margins(ModelRows(reference, output, torch.zeros(len(reference)), True))
    return (lost / decision_margin(reference.double()).clamp_min(1e-12)).clamp(0.0, 1.0)
