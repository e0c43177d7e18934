"""The run-time modules of the gates that read what a light branch observes: a bound, or an estimate, of its error on this row."""

import torch
from torch import Tensor, nn

from dendrofx.runtime.scores import UNJUDGED, LightRows


def relative_error(error: Tensor, size: Tensor, evidence: Tensor, unjudged: float) -> Tensor:
    """Return `error / (size - error)`: what an error is at most, relative to the full output, whose size is not known.

    Args:
        error: f32[N], of the light output.
        size: f32[N], norm of the light output.
        evidence: f32[N, ...], that the light branch observed.
        unjudged: the score of a row whose error is as large as its output.

    Returns:
        f32[N]; infinity for rows that are not finite.
    """
    judged = (size > error) & size.isfinite()
    score = torch.where(judged, error / (size - error), unjudged).clamp(0.0, unjudged)
    return score.masked_fill(~(size.isfinite() & (evidence.sum(1) < float("inf"))), float("inf"))


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
        """Map the rows and what the light branch made of them to f32[N]."""
        bound = torch.zeros(x.size(0), dtype=torch.float32)
        for i in range(self.terms.size(0)):
            grow, miss, seen, slack, tiny, rounding, constant = self.terms[i].unbind()
            norm, code = light.evidence[:, 2 * i], light.evidence[:, 2 * i + 1]
            missed = ((norm - code).clamp_min(0.0) * (norm + code) + slack * norm.square() + tiny).sqrt()
            bound = grow * bound + miss * missed + seen * code + rounding * norm + constant
        size = torch.linalg.vector_norm(light.out, 2, 1) * (1.0 - self.rounding)
        return relative_error(bound, size, light.evidence, self.unjudged)


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
        """Map the rows and what the light branch made of them to f32[N]."""
        size = torch.linalg.vector_norm(light.out, 2, 1)
        square = size.double().square() * self.rounding  # squares of small rows underflow in float32
        noise = torch.zeros_like(square)
        for i in range(self.terms.size(0)):
            carried, first, second = self.terms[i].double().unbind()
            seen = light.evidence[:, 2 * i : 2 * i + 2].double().square()
            noise = carried * noise + first * seen[:, 0] + second * seen[:, 1]
        bound = ((noise + square).sqrt() * self.cover).to(torch.float32)
        return relative_error(bound, size, light.evidence, self.unjudged)
