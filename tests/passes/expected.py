"""What the five passes of sites make of the tiny models, in plain PyTorch: rewritten graphs equal traces of these."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dendrofx.light import LowRank
from dendrofx.runtime.leaves import FullOnHardRows
from dendrofx.runtime.routing import as_rows, restore_rows, split_rows


def block() -> nn.Sequential:
    return nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 8))


LIGHT = LowRank(rank=2).fit(block())
# 24 * (16 + 8) moved values over themselves and the light branch's 2 * (16 + 32) + 2 * (32 + 8) multiply-adds
SHARE = 0.8972
NEVER = 2.0


class Expected(nn.Module):
    """A function of its children, which are compared by class: blocks, and the light leaf and the gate that are given."""

    def __init__(
        self, function: Callable[["Expected", Tensor], Tensor], light: nn.Module = LIGHT, gate: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.function, self.light, self.gate = function, light, gate
        self.block, self.stem, self.head, self.first, self.second = (nn.Sequential() for _ in range(5))
        self.norm, self.fc, self.full = nn.LayerNorm(16), nn.Linear(16, 16), FullOnHardRows(nn.Linear(16, 8), 128)
        self.register_buffer("tolerance", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def outlined(m: Expected, x: Tensor) -> Tensor:
    return m.block(x)


def outlined_residual(m: Expected, x: Tensor) -> Tensor:
    x = F.relu(m.stem(x))
    return m.head(x + m.block(x))


def outlined_first(m: Expected, x: Tensor) -> Tensor:
    return m.fc(m.norm(m.first(x)))


def lit(m: Expected, x: Tensor) -> Tensor:
    m.light(as_rows(x, 16, "fc1..fc2"))
    return m.block(x)


def lit_second(m: Expected, x: Tensor) -> Tensor:
    x = m.norm(m.first(x))
    m.light(as_rows(x, 16, "fc#2"))
    return m.second(x)


def gated_by_input(m: Expected, x: Tensor) -> Tensor:
    rows = as_rows(x, 16, "fc1..fc2")
    m.light(rows)
    split_rows(m.gate(rows), m.tolerance, SHARE)
    return m.block(x)


def gated_by_light(m: Expected, x: Tensor) -> Tensor:
    rows = as_rows(x, 16, "fc1..fc2")
    split_rows(m.gate(rows, m.light(rows)), m.tolerance, NEVER)
    return m.block(x)


def routed_by_input(m: Expected, x: Tensor) -> Tensor:
    rows = as_rows(x, 16, "fc1..fc2")
    split = split_rows(m.gate(rows), m.tolerance, SHARE)
    return restore_rows(m.full(rows, m.light(rows, split), split), x)


def routed_by_light(m: Expected, x: Tensor) -> Tensor:
    rows = as_rows(x, 16, "fc1..fc2")
    light = m.light(rows)
    split = split_rows(m.gate(rows, light), m.tolerance, NEVER)
    return restore_rows(m.full(rows, light, split), x)
