"""Models that are called in other ways than with a tensor, and return other things."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from tests.graph.capture.models import Base


@dataclass
class Encoded:
    """Two tensors, and something that need not be there."""

    hidden: Tensor
    pooled: Tensor
    extra: Tensor | None = None


class Pair(NamedTuple):
    """Two tensors."""

    first: Tensor
    second: Tensor


class Returns(Base):
    """Whatever `kind` says."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Any:
        y = self.mlp(x)
        pooled = y.mean(0)
        return {
            "tensor": y,
            "tuple": (y, pooled),
            "list": [y, pooled],
            "tuple with None": (y, None),
            "nested tuple": (y, (pooled, y + 1)),
            "dict": {"hidden": y, "pooled": pooled},
            "dict of one": {"output": y},
            "dict by number": {0: y, 1: pooled},
            "ordered": OrderedDict(b=y, a=pooled),
            "nested": {"hidden": y, "all": [y + 1, (pooled,)], "note": "n", "none": None},
            "dataclass": Encoded(y, pooled),
            "named tuple": Pair(y, pooled),
        }[self.kind]


class Flags(Base):
    """Positional, keyword, default, flag and None."""

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        shift: Tensor | None = None,
        *,
        scale: float = 1.0,
        twice: bool = False,
    ) -> dict[str, Tensor]:
        y = self.mlp(x if shift is None else x + shift) * scale
        if mask is not None:
            y = y * mask.unsqueeze(-1)
        return {"y": 2 * y if twice else y}
