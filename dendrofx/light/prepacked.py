"""Prepacked: every Linear exact, in float32, with its weights laid out for oneDNN's kernel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dendrofx.errors import InputError
from dendrofx.light.form import Precision
from dendrofx.runtime.packed import PackedLinear


@dataclass(frozen=True)
class Prepacked(Precision):
    """The block itself, up to the order of summation (about 1e-6 relative), often faster than `F.linear`, most so for a few rows.

    Made for `full=Prepacked()`. The laid-out weights take as much memory again, and are laid out anew whenever the module is
    loaded: save it unfrozen, and freeze after loading.

    Example:
        >>> full = Prepacked().fit(nn.Linear(1024, 4096))
    """

    exact = True

    def check_machine(self) -> None:
        """Refuse a torch that is built without oneDNN."""
        if not torch.backends.mkldnn.is_available():
            raise InputError(f"{self} needs a torch with oneDNN (torch.backends.mkldnn)")

    def linear(self, weight: Tensor, bias: Tensor | None, rows: Tensor | None) -> nn.Module:
        """See `Precision.linear`."""
        return PackedLinear(weight, bias)
