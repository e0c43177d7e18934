"""The run-time modules of the controls, gates that no one would deploy: constant, random, and the truth itself."""

import torch
from torch import Tensor, nn

from dendrofx.runtime.model_scores import flat_rows
from dendrofx.runtime.scores import LightRows, hard_where_not_finite


class ConstantScore(nn.Module):
    """The same score for every row: 0 is always light (at any tolerance above 0), infinity always full."""

    def __init__(self, score: float) -> None:
        super().__init__()
        self.score = score
        self.margin = 0.0
        self.macs = 0

    def forward(self, x: Tensor) -> Tensor:
        """Map f32[N, in] to f32[N]."""
        return torch.full([x.size(0)], self.score, dtype=torch.float32)


class FirstScore(nn.Module):
    """Infinity for the first `count` rows of a batch, 0 for the others: to time what a number of hard rows takes."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        self.margin = 0.0
        self.macs = 0

    def forward(self, x: Tensor) -> Tensor:
        """Map f32[N, ...] to f32[N]."""
        first = torch.arange(x.size(0)) < self.count
        return torch.zeros(x.size(0), dtype=torch.float32).masked_fill_(first, float("inf"))


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
        """Map f32[N, in] to f32[N]."""
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
        """Map f32[N, in] and the light rows to f32[N]."""
        full = self.block(x)
        error = torch.linalg.vector_norm(light.out - full, 2, 1) / torch.linalg.vector_norm(full, 2, 1)
        return hard_where_not_finite(torch.nan_to_num(error, nan=float("inf"), posinf=float("inf")), x)


class RandomModelScore(nn.Module):
    """`RandomScore` of a sample's light output."""

    def __init__(self, rate: float, seed: int) -> None:
        super().__init__()
        self.random = RandomScore(rate, seed)
        self.margin = 0.0
        self.macs = 0

    def forward(self, output: Tensor) -> Tensor:
        """Map f32[N, ...] to f32[N]."""
        return self.random(flat_rows(output))  # type: ignore[no-any-return]


class KnownScore(nn.Module):
    """Scores that are known beforehand, of samples that are known again by their light outputs: for the oracle, never timed.

    Args:
        outputs: f32[M, features], the light model's.
        scores: f32[M].
    """

    outputs: Tensor
    scores: Tensor

    def __init__(self, outputs: Tensor, scores: Tensor) -> None:
        super().__init__()
        self.register_buffer("outputs", outputs)
        self.register_buffer("scores", scores)
        self.margin = 0.0
        self.macs = 0

    def forward(self, output: Tensor) -> Tensor:
        """Map f32[N, ...] to f32[N]: of the nearest known output; the last bits of a sample's own depend on its batch."""
        return self.scores[torch.cdist(flat_rows(output), self.outputs).argmin(1)]
