"""The learned gate: ridge regression on cheap features of a row, in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from dendrofx.errors import InputError
from dendrofx.gates.form import GateForm, SiteRows
from dendrofx.gates.scores import LearnedScore

HARDLY = 1e-4
SMALLEST_ERROR = 1e-7  # about float32's own noise: below it, one error is as good as another


@dataclass(frozen=True)
class LearnedGate(GateForm):
    """Predicts the log of a row's error from its norm and its code in a few principal directions.

    The weights are the ridge solution `w = (Z'Z + ridge n I)^-1 Z' log(error)` over the standardised features Z of n
    calibration rows (Hoerl and Kennard, 1970): no iteration, no randomness. Rows with a feature outside its calibrated
    range are not judged (score 1e30).

    Args:
        directions: principal directions of the calibration rows in the code, at most the block's input width.
        ridge: penalty relative to the number of rows.
    """

    directions: int = 8
    ridge: float = 1e-2
    needs_rows = True

    def __post_init__(self) -> None:
        if self.directions < 1:
            raise InputError(f"directions must be >= 1, got {self.directions}")
        if not self.ridge > 0:
            raise InputError(f"ridge must be > 0, got {self.ridge}")

    @torch.no_grad()
    def fit(self, site: SiteRows) -> nn.Module:
        """Solve for the weights; see `GateForm.fit`."""
        rows, error = self.required(site)
        gate = LearnedScore(site.data.directions(0, "input")[:, : self.directions].t())
        features = gate.features(rows)
        usable = features.isfinite().all(1)
        features = features[usable]
        if len(features) == 0:
            gate.scale.fill_(torch.inf)
            return gate
        ranged = gate.features(site.range_rows)
        ranged = ranged[ranged.isfinite().all(1)]
        low, high = ranged.amin(0), ranged.amax(0)
        # a feature that hardly varies beside the rows' norm is rounding: it is scaled down and left out of the score
        size = high[0]
        constant = (high - low) <= HARDLY * size
        gate.scale.copy_(2 / (high - low + HARDLY * size).clamp_min(1e-6))
        gate.shift.copy_(-(low + high) / 2 * gate.scale)
        z = (features * gate.scale + gate.shift).double()
        target = error[usable].double().clamp_min(SMALLEST_ERROR).log()
        mean, spread = z.mean(0), z.std(0, correction=0).clamp_min(1e-9)
        spread[constant] = torch.inf
        standard = (z - mean) / spread
        gram = standard.t() @ standard + self.ridge * len(z) * torch.eye(z.size(1), dtype=z.dtype)
        weight = torch.linalg.solve(gram, standard.t() @ (target - target.mean())) / spread
        gate.weight.copy_(weight[None])
        gate.offset.copy_((target.mean() - weight @ mean)[None])
        return gate
