"""Models with odd Linears and contexts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.models import Mlp

WIDTH = 16


class Base(nn.Module):
    """An MLP to call; what is asked of capture is in the forward of the subclasses."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(WIDTH, 32), nn.Linear(32, WIDTH)

    def mlp(self, x: Tensor) -> Tensor:
        return self.fc2(torch.relu(self.fc1(x)))  # type: ignore[no-any-return]


class Regions(Base):
    """Regions of no_grad and of autocast that is off; a branch by size, so that FX cannot trace it."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            h = self.fc1(x) if x.shape[-1] == WIDTH else x
        with torch.no_grad():
            h = torch.relu(h)
        return self.fc2(h)  # type: ignore[no-any-return]


class Autocast(Base):
    """The first Linear runs in bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            h = self.fc1(x)
        return self.fc2(torch.relu(h.float()))  # type: ignore[no-any-return]


class WritesInPlace(Base):
    """Into a slice, and between its Linears into their input."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.clone()
        x[..., 0] = 1.0
        h = self.fc1(x)
        x.add_(1)
        return self.fc2(F.relu(h, inplace=True)) + x  # type: ignore[no-any-return]


class Tied(nn.Module):
    """A decoder whose weight is the embedding's, and a second decoder with the same weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.decoder, self.other = nn.Linear(WIDTH, 20), nn.Linear(WIDTH, 20, bias=False)
        self.decoder.weight = self.other.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        h = self.norm(self.embedding(ids))
        if ids.shape[0] > 0:
            h = torch.sigmoid(h)
        return self.decoder(h) * self.other(h)  # type: ignore[no-any-return]


class SharedLayer(Base):
    """One layer, called twice."""

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2 if x.shape[0] > 0 else 1):
            x = x + self.mlp(x)
        return x


class ByWeight(Base):
    """One Linear is used through its weight alone."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[0] > 0
        return F.linear(torch.relu(self.fc1(x)), self.fc2.weight, self.fc2.bias + 1)


class Subclass(nn.Linear):
    """Not what a Linear computes."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


class OddLinears(Base):
    """A subclass of Linear beside plain ones, in a forward that FX cannot trace."""

    def __init__(self) -> None:
        super().__init__()
        self.doubled = Subclass(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[0] > 0
        return self.mlp(self.doubled(x))


class Attends(nn.Module):
    """Attention whose output projection torch uses through its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.mlp = nn.MultiheadAttention(WIDTH, 2, batch_first=True), Mlp(WIDTH, 32, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x + self.attention(x, x, x)[0])  # type: ignore[no-any-return]


class AttendsInTurn(Attends):
    """The same, in a forward that FX cannot trace."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.shape[1] > 0 else x
