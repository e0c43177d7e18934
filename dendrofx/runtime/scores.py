"""The run-time modules of the gates: each maps rows to scores and scripts."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# A score that no tolerance but infinity accepts: "this row cannot be judged". TorchScript reads no globals, so the modules
# keep it as an attribute.
UNJUDGED = 1e30


def hard_where_not_finite(score: Tensor, x: Tensor) -> Tensor:
    """Return a row's score; NaN where the row is not finite.

    For scores that do not show it: behind a ReLU or a tanh even the light output of an infinite row is finite, and wrong. One sum
    over the row, and one addition of none of it: 0 times a number is 0, 0 times the others is NaN.

    Args:
        score: f32[N].
        x: f32[N, ...], the rows.
    """
    return torch.add(score, x.flatten(1).sum(1) if x.dim() > 1 else x, alpha=0.0)


class LightRows(NamedTuple):
    """What a light branch hands on: its output rows, and the evidence that `ResidualGate` reads (else anything)."""

    out: Tensor
    evidence: Tensor


class EnergyScore(nn.Module):
    """`exp(offset + slope * log mean|x|)` where `log mean|x|` is within `reach` of `centre`."""

    def __init__(self, offset: float, slope: float, centre: float, reach: float) -> None:
        super().__init__()
        self.offset, self.slope, self.centre, self.reach = offset, slope, centre, reach
        self.margin = 1e-4
        self.unjudged = UNJUDGED
        self.macs = 0

    def forward(self, x: Tensor) -> Tensor:
        """Map f32[N, in] to f32[N]."""
        energy = x.abs().mean(1)
        z = energy.log()
        score = (z * self.slope + self.offset).exp()
        inside = (z - self.centre).abs() <= self.reach
        unjudged = energy * 0.0 + self.unjudged  # NaN where the row is not finite
        return torch.where(inside, score, unjudged)


class FeatureScore(nn.Module):
    """`exp(offset + weight . z)`, z a row's features scaled so that no calibration row leaves [-1, 1].

    Few operations, and in place: a gate runs on every row, and on narrow blocks the number of its operations is its cost.

    Args:
        features: how many.
        macs: multiply-adds per row.
    """

    shift: Tensor
    scale: Tensor
    weight: Tensor
    offset: Tensor

    def __init__(self, features: int, macs: int) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.register_buffer("weight", torch.zeros(1, features))
        self.register_buffer("offset", torch.zeros(1))
        self.margin = 1e-3
        self.unjudged = UNJUDGED
        self.macs = macs

    def score(self, features: Tensor) -> Tensor:
        """Map f32[N, features] to f32[N]; NaN or infinity for a row that is not finite."""
        z = torch.addcmul(self.shift, features, self.scale)
        score = F.linear(z, self.weight, self.offset).exp_()
        reach = z.abs_().amax(1, keepdim=True)
        return torch.where(reach > 1.000001, reach * self.unjudged, score).squeeze(1)  # the slack is for rounding


class LearnedScore(FeatureScore):
    """Reads the row. Features of a row x with code c = directions x: `||x||`, `||c||` and c.

    Args:
        directions: f32[k, in], orthonormal.
    """

    directions: Tensor

    def __init__(self, directions: Tensor) -> None:
        features = directions.size(0) + 2
        super().__init__(features, int(directions.numel() + features))
        # a view would keep all directions that these few were cut from
        self.register_buffer("directions", directions.clone(memory_format=torch.contiguous_format))

    @torch.jit.export
    def features(self, x: Tensor) -> Tensor:
        """Map f32[N, in] to f32[N, features]."""
        code = F.linear(x, self.directions)
        norms = [torch.linalg.vector_norm(v, 2, 1, keepdim=True) for v in (x, code)]
        return torch.cat([norms[0], norms[1], code], 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map f32[N, in] to f32[N]."""
        return self.score(self.features(x))


class LearnedLightScore(LearnedScore):
    """Reads what the light branch made of the row, instead of the row."""

    def forward(self, x: Tensor, light: LightRows) -> Tensor:  # type: ignore[override]
        """Map the rows and their light outputs to f32[N]."""
        return hard_where_not_finite(self.score(self.features(light.out)), x)


class LearnedScaleScore(FeatureScore):
    """Reads the scales that an int8 light branch quantised the row with; its features are their logarithms.

    Args:
        scales: how many.
    """

    def __init__(self, scales: int) -> None:
        super().__init__(scales, scales)

    @torch.jit.export
    def features(self, scales: Tensor) -> Tensor:
        """Map f32[N, scales] to f32[N, scales]."""
        return scales.log()

    def forward(self, x: Tensor, light: LightRows) -> Tensor:
        """Map the rows and their scales to f32[N]."""
        return self.score(self.features(light.evidence))
