"""The run-time modules of the gates: each maps rows to scores and scripts."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# A score that no tolerance but infinity accepts: "this row cannot be judged". TorchScript reads no globals, so the modules
# keep it as an attribute.
UNJUDGED = 1e30


def hard_where_not_finite(score: Tensor, x: Tensor) -> Tensor:
    """A row's score; NaN where the row is not finite.

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


class ConstantScore(nn.Module):
    """The same score for every row: 0 is always light (at any tolerance above 0), infinity always full."""

    def __init__(self, score: float) -> None:
        super().__init__()
        self.score = score
        self.margin = 0.0
        self.macs = 0

    def forward(self, x: Tensor) -> Tensor:
        """f32[N, in] -> f32[N]."""
        return torch.full([x.size(0)], self.score, dtype=torch.float32)


class RandomScore(nn.Module):
    """Infinity for a pseudo-random share `rate` of the rows, 0 for the others, by a hash of the row's own bits.

    The bits (of at most 256 values, evenly spaced) are summed as integers, so the hash depends neither on the order of
    summation nor on the batch.
    """

    def __init__(self, rate: float, seed: int) -> None:
        super().__init__()
        self.rate = rate
        self.seed = seed
        self.margin = 0.0
        self.macs = 0

    def forward(self, x: Tensor) -> Tensor:
        """f32[N, in] -> f32[N]."""
        # TorchScript cannot view floats as integers: mantissas, scaled to whole numbers, and exponents hold the same bits
        mantissa, exponent = torch.frexp(x[:, :: 1 + x.size(1) // 256].nan_to_num())
        place = (torch.arange(mantissa.size(1)) * 2654435761 + 12345) | 1  # odd: a value counts by where it stands
        h = (((mantissa * 16777216.0).to(torch.int64) * 31 + exponent) * place).sum(1) + self.seed * 2654435761
        for _ in range(3):  # multiply and xor-shift rounds: neighbouring sums must not get neighbouring hashes
            h = (h ^ (h >> 15)) * 2246822519
            h = (h ^ (h >> 13)) & 0x7FFFFFFF
        hard = h.to(torch.float64) / 2147483648.0 < self.rate
        return torch.zeros(x.size(0), dtype=torch.float32).masked_fill_(hard, float("inf"))


class OracleScore(nn.Module):
    """The true error, by running the full block on every row: a yardstick, it saves nothing."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.margin = 1e-3
        self.macs = 0

    def forward(self, x: Tensor, light: LightRows) -> Tensor:
        """f32[N, in] and the light rows -> f32[N]."""
        full = self.block(x)
        error = torch.linalg.vector_norm(light.out - full, 2, 1) / torch.linalg.vector_norm(full, 2, 1)
        return hard_where_not_finite(torch.nan_to_num(error, nan=float("inf"), posinf=float("inf")), x)


class EnergyScore(nn.Module):
    """`exp(offset + slope * log mean|x|)` where `log mean|x|` is within `reach` of `centre`."""

    def __init__(self, offset: float, slope: float, centre: float, reach: float) -> None:
        super().__init__()
        self.offset, self.slope, self.centre, self.reach = offset, slope, centre, reach
        self.margin = 1e-4
        self.unjudged = UNJUDGED
        self.macs = 0

    def forward(self, x: Tensor) -> Tensor:
        """f32[N, in] -> f32[N]."""
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
        """f32[N, features] -> f32[N]; NaN or infinity for a row that is not finite."""
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
        """f32[N, in] -> f32[N, features]."""
        code = F.linear(x, self.directions)
        norms = [torch.linalg.vector_norm(v, 2, 1, keepdim=True) for v in (x, code)]
        return torch.cat([norms[0], norms[1], code], 1)

    def forward(self, x: Tensor) -> Tensor:
        """f32[N, in] -> f32[N]."""
        return self.score(self.features(x))


class LearnedLightScore(LearnedScore):
    """Reads what the light branch made of the row, instead of the row."""

    def forward(self, x: Tensor, light: LightRows) -> Tensor:  # type: ignore[override]
        """The rows and their light outputs -> f32[N]."""
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
        """f32[N, scales] -> f32[N, scales]."""
        return scales.log()

    def forward(self, x: Tensor, light: LightRows) -> Tensor:
        """The rows and their scales -> f32[N]."""
        return self.score(self.features(light.evidence))


class ResidualScore(nn.Module):
    """`B / (||y_light|| - B)`, B the bound of `ResidualGate`; 1e30 where B >= ||y_light||.

    Args:
        terms: f32[linears, 7], the constants of each Linear, in the order of `ResidualGate`'s docstring.
        rounding: relative rounding error of the norm of the output row.
    """

    terms: Tensor

    def __init__(self, terms: Tensor, rounding: float) -> None:
        super().__init__()
        self.register_buffer("terms", terms)
        self.rounding = rounding
        self.margin = 1e-2
        self.unjudged = UNJUDGED
        self.macs = 0

    def forward(self, x: Tensor, light: LightRows) -> Tensor:
        """The rows and what the light branch made of them -> f32[N]."""
        bound = torch.zeros(x.size(0), dtype=torch.float32)
        for i in range(self.terms.size(0)):
            grow, miss, seen, slack, tiny, rounding, constant = self.terms[i].unbind()
            norm, code = light.evidence[:, 2 * i], light.evidence[:, 2 * i + 1]
            missed = ((norm - code).clamp_min(0.0) * (norm + code) + slack * norm.square() + tiny).sqrt()
            bound = grow * bound + miss * missed + seen * code + rounding * norm + constant
        size = torch.linalg.vector_norm(light.out, 2, 1) * (1.0 - self.rounding)
        judged = (size > bound) & size.isfinite()
        score = torch.where(judged, bound / (size - bound), self.unjudged).clamp(0.0, self.unjudged)
        return score.masked_fill(~(size.isfinite() & (light.evidence.sum(1) < float("inf"))), float("inf"))


class NoiseScore(nn.Module):
    """`n / (||y_light|| - n)`, n the noise of `NoiseGate`; 1e30 where n >= ||y_light||.

    Args:
        terms: f32[linears, 3], the constants of each Linear: what carries over of the squared noise so far, of the square of the
            first norm it observes, and of the second.
        rounding: squared noise per squared norm of the output row.
        cover: what the root mean square is multiplied by.
    """

    terms: Tensor

    def __init__(self, terms: Tensor, rounding: float, cover: float) -> None:
        super().__init__()
        self.register_buffer("terms", terms)
        self.rounding = rounding
        self.cover = cover
        self.margin = 1e-3
        self.unjudged = UNJUDGED
        self.macs = 0

    def forward(self, x: Tensor, light: LightRows) -> Tensor:
        """The rows and what the light branch made of them -> f32[N]."""
        size = torch.linalg.vector_norm(light.out, 2, 1)
        square = size.double().square() * self.rounding  # squares of small rows underflow in float32
        noise = torch.zeros_like(square)
        for i in range(self.terms.size(0)):
            carried, first, second = self.terms[i].double().unbind()
            seen = light.evidence[:, 2 * i : 2 * i + 2].double().square()
            noise = carried * noise + first * seen[:, 0] + second * seen[:, 1]
        bound = ((noise + square).sqrt() * self.cover).to(torch.float32)
        judged = (size > bound) & size.isfinite()
        score = torch.where(judged, bound / (size - bound), self.unjudged).clamp(0.0, self.unjudged)
        return score.masked_fill(~(size.isfinite() & (light.evidence.sum(1) < float("inf"))), float("inf"))
