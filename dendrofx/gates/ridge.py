"""Fit the weights of a learned gate: ridge regression in closed form, and the range outside of which rows are not judged."""

from __future__ import annotations

import torch
from torch import Tensor

from dendrofx.runtime.scores import FeatureScore

HARDLY = 1e-4
RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
SMALLEST_ERROR = 1e-7  # about float32's own noise: below it, one error is as good as another


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
    """Solve the ridge regression over the scaled features; without a penalty the one that cross-validates best."""
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
    """Return the penalty with the least leave-one-out error, in closed form from one eigendecomposition.

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
