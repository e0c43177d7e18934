"""What the source of a random module may name."""

from __future__ import annotations

import collections
import dataclasses
import math
import threading
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Outputs with names, in two forms.
_FIELDS = ("y", "value", "loss", "label", "other", "size")
Encoded = dataclasses.make_dataclass("Encoded", [(name, Any, None) for name in _FIELDS])
Pair = collections.namedtuple("Pair", _FIELDS, defaults=[None] * len(_FIELDS))


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
