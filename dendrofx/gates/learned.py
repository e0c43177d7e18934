"""The learned gate: ridge regression on cheap features of a row, or of what the light branch made of it, in closed form."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dendrofx.errors import InputError
from dendrofx.gates.form import GateForm, Reads, SiteRows
from dendrofx.graph.block import principal_directions
from dendrofx.runtime.branches import Int8Chain
from dendrofx.runtime.scores import FeatureScore, LearnedLightScore, LearnedScaleScore, LearnedScore

if TYPE_CHECKING:
    from dendrofx.gates.model import ModelRows

HARDLY = 1e-4
RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
SMALLEST_ERROR = 1e-7  # about float32's own noise: below it, one error is as good as another


@dataclass(frozen=True)
class LearnedGate(GateForm):
    """Predicts the log of a row's error from its norm and its code in a few principal directions.

    The weights are the ridge solution `w = (Z'Z + ridge n I)^-1 Z' log(error)` over the standardised features Z of n
    calibration rows (Hoerl and Kennard, 1970): no iteration, no randomness. A row is not judged (score 1e30) when its largest
    standardised feature exceeds that of all calibration rows: one number, so that of new rows of the same kind only about
    1 in n does, however many features there are (n far above the features, which are standardised on the same rows).

    Args:
        directions: principal directions of the calibration rows in the code, at most their width.
        ridge: penalty relative to the number of rows; None takes the one with the least leave-one-out error.
        reads: "input": features of the row. "light": features of the light branch's output, which then runs on every
            row: next to free where the site is wide and its output narrow. "scales": the logarithms of the scales that an
            int8 light branch quantises its rows with, one per Linear; they are there anyway.
    """

    directions: int = field(default=8, metadata={"shown": True})
    ridge: float | None = None
    reads: Reads = "input"
    needs_rows = True

    def __post_init__(self) -> None:
        if self.directions < 1:
            raise InputError(f"directions must be >= 1, got {self.directions}")
        if self.ridge is not None and not self.ridge > 0:
            raise InputError(f"ridge must be > 0, got {self.ridge}")
        if self.reads not in ("input", "light", "scales"):
            raise InputError(f"reads must be 'input', 'light' or 'scales', got {self.reads!r}")

    @torch.no_grad()
    def fit(self, site: SiteRows) -> nn.Module:
        """Solve for the weights; see `GateForm.fit`."""
        rows, error = self.required(site)
        gate, rows, ranged = self._gate(site, rows)
        features = gate.features(rows)
        usable = features.isfinite().all(1)
        if not bool(usable.any()):
            gate.scale.fill_(torch.inf)
            return gate
        fit_range(gate, gate.features(ranged))
        fit_weights(gate, features[usable], error[usable], self.ridge)
        return gate

    def fit_model(self, rows: ModelRows) -> nn.Module:
        """At model scope, on features of the light model's output (`LearnedModelScore`); see `fit_learned`."""
        from dendrofx.gates.model import fit_learned  # which builds on this file

        return fit_learned(rows, self.directions, self.ridge)

    def _gate(self, site: SiteRows, rows: Tensor) -> tuple[LearnedScore | LearnedScaleScore, Tensor, Tensor]:
        """The unfitted gate, and what it takes its features from: on the rows, and on those that show their range."""
        if self.reads == "scales":
            if not isinstance(site.light, Int8Chain):
                raise InputError(
                    f"{self} reads the scales of int8 light branches; take LearnedGate() for this light form"
                )
            ranged = site.ranged(lambda x: site.runs.read(x, "scales").evidence)
            seen = site.runs.read(rows, "scales").evidence
            return LearnedScaleScore(seen.size(1)), seen, ranged
        if self.reads == "light":
            out, ranged = site.runs.read(rows, "light").out, site.ranged(lambda x: site.runs.read(x, "light").out)
            return LearnedLightScore(principal_directions(out, self.directions).t()), out, ranged
        directions = site.data.directions(0, "input")[:, : self.directions].t()
        return LearnedScore(directions), rows, site.ranged(lambda x: x)


def fit_range(gate: FeatureScore, features: Tensor) -> None:
    """Scale and shift, so that the largest |z| of the finite rows is 1."""
    features = features[features.isfinite().all(1)].double()
    mean, spread = features.mean(0), features.std(0, correction=0)
    # a feature that hardly varies beside the rows' size is rounding: it must not decide what is out of range
    spread = (spread + HARDLY * features[:, 0].abs().max()).clamp_min(1e-6)
    reach = ((features - mean) / spread).abs().max().clamp_min(1.0) * (1 + HARDLY)  # the row that sets it stays inside
    gate.scale.copy_(1 / (spread * reach))
    gate.shift.copy_(-mean / (spread * reach))


def fit_weights(gate: FeatureScore, features: Tensor, error: Tensor, ridge: float | None) -> None:
    """The ridge solution over the scaled features; without a penalty the one that cross-validates best."""
    z = (features * gate.scale + gate.shift).double()
    target = error.double().clamp_min(SMALLEST_ERROR).log()
    constant = features.double().std(0, correction=0) <= HARDLY * features[:, 0].abs().max()
    mean, spread = z.mean(0), z.std(0, correction=0).clamp_min(1e-9)
    spread[constant] = torch.inf
    standard = (z - mean) / spread
    penalty = best_ridge(standard, target) if ridge is None else ridge
    gram = standard.t() @ standard + penalty * len(z) * torch.eye(z.size(1), dtype=z.dtype)
    weight = torch.linalg.solve(gram, standard.t() @ (target - target.mean())) / spread
    gate.weight.copy_(weight[None])
    gate.offset.copy_((target.mean() - weight @ mean)[None])


def best_ridge(standard: Tensor, target: Tensor) -> float:
    """The penalty with the least leave-one-out error, in closed form from one eigendecomposition.

    Source: D. Allen, "The relationship between variable selection and data augmentation and a method for prediction",
    Technometrics 16, 1974 (PRESS).

    Args:
        standard: f64[n, features], standardised.
        target: f64[n].
    """
    n = len(standard)
    values, vectors = torch.linalg.eigh(standard.t() @ standard)
    rotated, centred = standard @ vectors, target - target.mean()
    projected = rotated.t() @ centred
    errors = {}
    for ridge in RIDGES:
        shrunk = 1 / (values.clamp_min(0) + ridge * n)
        leverage = (rotated.square() * shrunk).sum(1) + 1 / n
        left = (centred - rotated @ (shrunk * projected)) / (1 - leverage).clamp_min(1e-9)
        errors[ridge] = float(left.square().sum())
    return min(errors, key=lambda ridge: errors[ridge])
