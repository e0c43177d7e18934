"""The run-time modules of the gates at model scope: each maps the light model's output to one score per sample, and scripts."""

import torch
from torch import Tensor, nn

from dendrofx.runtime.scores import FeatureScore, hard_where_not_finite


def decision_margin(output: Tensor) -> Tensor:
    """Measure how far a sample is from another decision, f32[N].

    The gap between its two largest logits, or the size of a single one; of several decisions in one sample the smallest.
    """
    if output.dim() == 1 or output.size(-1) == 1:
        return output.abs() if output.dim() == 1 else output.flatten(1).abs().amin(1)
    top = torch.topk(output, 2, -1)[0]
    gap = top[..., 0] - top[..., 1]
    return gap if gap.dim() == 1 else gap.flatten(1).amin(1)


def flat_rows(output: Tensor) -> Tensor:
    """Map [N, ...] to [N, features]; of [N] one feature."""
    return output.unsqueeze(1) if output.dim() == 1 else output.flatten(1)


def flip_probability(margin: Tensor, noise: Tensor) -> Tensor:
    """Return P(a normal error of standard deviation `noise` exceeds the margin)."""
    return torch.erfc(margin / (noise * 1.4142135623730951)) * 0.5


class MarginScore(nn.Module):
    """The probability that the decision flips, from the margin alone.

    Args:
        noise: standard deviation of what the light model moves the margin by.
    """

    noise: Tensor
    steepness: Tensor

    def __init__(self, noise: float) -> None:
        super().__init__()
        self.register_buffer("noise", torch.tensor(noise))
        self.register_buffer("steepness", 1 / (self.noise * 2.0**0.5))
        self.margin = 1e-2
        self.macs = 0

    def forward(self, output: Tensor) -> Tensor:
        """Map f32[N, ...] to f32[N]; see `flip_probability`."""
        return torch.erfc(decision_margin(output.to(torch.float32)) * self.steepness) * 0.5


class LearnedModelScore(FeatureScore):
    """Ridge regression on features of the light model's output.

    Features of an output y with code c = directions y: `log ||y||`, `log (max |y| / rms y)` (the crest), c / ||y||, and where y are
    logits also the logarithms of the margin and of the entropy.

    Args:
        directions: f32[k, features].
        decides: whether y are logits; the regression is then of what the margin moves by, and the score is a flip probability.
            Else it is of the loss.
    """

    directions: Tensor

    def __init__(self, directions: Tensor, decides: bool) -> None:
        features = directions.size(0) + (4 if decides else 2)
        super().__init__(features, int(directions.numel() + features))
        # a view would keep all directions that these few were cut from
        self.register_buffer("directions", directions.clone(memory_format=torch.contiguous_format))
        self.decides = decides

    @torch.jit.export
    def features(self, output: Tensor) -> Tensor:
        """Map f32[N, ...] to f32[N, features]."""
        y = flat_rows(output).to(torch.float32)
        norm = torch.linalg.vector_norm(y, 2, 1, keepdim=True) + 1e-12
        crest = y.abs().amax(1, keepdim=True) / norm
        found = [norm.log(), (crest + 1e-12).log(), torch.matmul(y / norm, self.directions.t())]
        if self.decides:
            log_p = torch.log_softmax(y, 1) if y.size(1) > 1 else torch.nn.functional.logsigmoid(torch.cat([y, -y], 1))
            entropy = -(log_p.exp() * log_p).sum(1, keepdim=True)
            found += [(decision_margin(output.to(torch.float32))[:, None] + 1e-6).log(), (entropy + 1e-6).log()]
        return torch.cat(found, 1)

    def forward(self, output: Tensor) -> Tensor:
        """Map f32[N, ...] to f32[N]."""
        expected = self.score(self.features(output))
        if not self.decides:
            return expected
        judged = expected < self.unjudged / 1e6
        return torch.where(judged, flip_probability(decision_margin(output.to(torch.float32)), expected), expected)


class UserScore(nn.Module):
    """A user's module, its values mapped to errors by an increasing curve: `exp(offset + slope value)`.

    Args:
        module: rows (or the light model's outputs) -> f32[N], larger where the row is in more doubt.
    """

    def __init__(self, module: nn.Module, offset: float, slope: float, margin: float, macs: int) -> None:
        super().__init__()
        self.module = module
        self.offset, self.slope = offset, slope
        self.margin = margin
        self.macs = macs

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, ...] to f32[N]."""
        score: Tensor = self.module(x)
        return hard_where_not_finite((score * self.slope + self.offset).exp(), x)
