"""What the source of a random module may name."""

from __future__ import annotations

import dataclasses
import math
import threading
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclasses.dataclass
class Encoded:
    """An output with names."""

    y: Tensor
    value: Any = None
    loss: Any = None
    label: Any = None
    other: Any = None
    size: Any = None


class Pair(NamedTuple):
    """The same, as a named tuple."""

    y: Tensor
    value: Any = None
    loss: Any = None
    label: Any = None
    other: Any = None
    size: Any = None


class Double(nn.Module):
    """A parametrization."""

    def forward(self, weight: Tensor) -> Tensor:
        """Twice the weight."""
        return 2 * weight


NAMESPACE = {
    "__name__": __name__,
    "torch": torch,
    "nn": nn,
    "F": F,
    "math": math,
    "threading": threading,
    "Encoded": Encoded,
    "Pair": Pair,
}
