"""Transposed: every Linear exact, in float32, with its weights laid out as their transpose."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from dendrofx.light.form import Precision
from dendrofx.runtime.branches import TransposedLinear


@dataclass(frozen=True)
class Transposed(Precision):
    """The block itself, up to the order of summation (about 1e-6 relative), faster than `F.linear` where a call has few rows.

    Made for `full=Transposed()`. The weights are a plain tensor: the module saves and freezes as any other.

    Example:
        >>> full = Transposed().fit(nn.Linear(1024, 4096))
    """

    exact = True

    def linear(self, weight: Tensor, bias: Tensor | None, rows: Tensor | None) -> nn.Module:
        """See `Precision.linear`."""
        return TransposedLinear(weight, bias)
