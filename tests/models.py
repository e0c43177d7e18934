"""The tiny models that tests share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Mlp(nn.Module):
    """One site: fc1, GELU, dropout, fc2."""

    def __init__(self, width: int = 16, hidden: int = 32, out: int = 8) -> None:
        super().__init__()
        self.fc1, self.act, self.drop, self.fc2 = (
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Dropout(0.5),
            nn.Linear(hidden, out),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.drop(self.act(self.fc1(x))))


class Residual(nn.Module):
    """Three sites: stem, the block fc1..fc2, head. relu has a second user, so stem..fc1 is refused."""

    def __init__(self, width: int = 16, hidden: int = 64) -> None:
        super().__init__()
        self.stem, self.fc1, self.fc2 = nn.Linear(width, width), nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.head(x + self.fc2(F.relu(self.fc1(x))))


class Shared(nn.Module):
    """One Linear called twice: two sites."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.fc = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(self.fc(x)))


class NoBlock(nn.Module):
    """No Linear at all."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x) * 2


def compressible(width: int = 64, hidden: int = 256, out: int = 8, rank: int = 6, noise: float = 1e-3) -> nn.Sequential:
    """An MLP whose weights are nearly of low rank, so that routing pays."""

    def linear(fan_in: int, fan_out: int) -> nn.Linear:
        layer = nn.Linear(fan_in, fan_out)
        with torch.no_grad():
            low = torch.randn(fan_out, rank) @ torch.randn(rank, fan_in) / (rank * fan_in) ** 0.5
            layer.weight.copy_(low + noise * torch.randn(fan_out, fan_in) / fan_in**0.5)
        return layer

    return nn.Sequential(linear(width, hidden), nn.ReLU(), linear(hidden, out)).eval()
