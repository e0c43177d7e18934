"""Models that decide something when they run: from values, from sizes, from the time of day."""

from __future__ import annotations

import functools
import itertools
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.graph.capture.models import WIDTH, Base


class Checks(Base):
    """Stops on bad input, and never does on good."""

    def forward(self, x: Tensor) -> Tensor:
        if not bool(torch.isfinite(x).all()):
            raise ValueError("not finite")
        return self.mlp(x)


class Item(Base):
    """Reads a value that does not depend on the input."""

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x) * int((x.abs().sum() >= 0).item())


class Numpy(Base):
    """Leaves torch for what is a constant."""

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x) * torch.from_numpy(np.ones(WIDTH, dtype=np.float32) * (x.detach().numpy().ndim > 0))


class Sizes(Base):
    """Computes with sizes on the way, and checks a value."""

    def forward(self, x: Tensor) -> Tensor:
        if bool((x != x).any()):
            raise ValueError("nan")
        parts = self.mlp(x).reshape(x.shape[0], -1, WIDTH // 2).unbind(1)
        best, _ = torch.stack(parts).max(0)
        half = best[: (x.shape[0] + 1) // 2]
        return torch.cat([half, x.new_zeros(x.shape[0] // 2, WIDTH // 2)])


class Decides(Base):
    """One of two branches by a value."""

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x) if x.sum() > 0 else self.mlp(-x)


class Unrolls(Base):
    """One call for every sample: the batch size is in the graph."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.mlp(row) for row in x])


class LargeBatches(Base):
    """Something else above a hundred samples."""

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x) * (2 if x.shape[0] > 100 else 1)


class Table(Base):
    """As many positions as the table has."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(40, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        length = x.size(1)
        if length > len(self.table):
            raise ValueError("too long")
        return self.mlp(x + self.table[:length])


class Rolls(nn.Module):
    """Random each time."""

    def forward(self, x: Tensor) -> Tensor:
        return x * random.random()


class Counts(nn.Module):
    """Another number each time."""

    calls = itertools.count()

    def forward(self, x: Tensor) -> Tensor:
        return x + next(self.calls)


class Drops(Base):
    """Dropout that stays on."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(self.mlp(x), 0.5, training=True)


class Writes(Base):
    """Into its input."""

    def forward(self, x: Tensor) -> Tensor:
        x.div_(2)
        return self.mlp(x)


class WritesSame(Base):
    """Into its input, what is there already."""

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x.view(-1, WIDTH).clamp_(-1e9, 1e9))


class Averages(Base):
    """Keeps a running mean."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        self.mean.mul_(0.9).add_(0.1 * x.mean(0))
        return self.mlp(x - self.mean)


class Replaces(Averages):
    """The same, with a new buffer in every call."""

    def forward(self, x: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        return self.mlp(x - self.mean)


class Twice(torch.autograd.Function):
    """2 x, with a gradient of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return 2 * grads[0]


class WithFunction(Checks):
    """Only a trace can follow it, and a trace keeps the call of Python."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(Twice.apply(x))  # type: ignore[no-untyped-call]


def turned(x: Tensor) -> Tensor:
    if bool(x.sum() > 0):
        return x
    return -x


@functools.cache
def scripted_turned() -> Any:
    return torch.jit.script(turned)


class WithScripted(Base):
    """A scripted function with an `if`, which a trace keeps."""

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(scripted_turned()(x))


class Uncopied(Base):
    """Holds what cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = (line for line in "ab")

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x)
