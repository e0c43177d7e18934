"""BFloat16: every Linear in bfloat16, where the CPU multiplies it natively."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dendrofx.errors import InputError
from dendrofx.light.form import Precision
from dendrofx.machine.capability import capability
from dendrofx.runtime.kernels import BFloat16Linear
from dendrofx.runtime.packed import PackedLinear

# The mean square of the relative error of rounding to 8 bits of mantissa, over values whose logarithms are spread evenly: a step of
# 2^-7 / m, m from 1 to 2, has 1 / m^2 at 3 / (8 log 2) in the mean.
ROUNDING = 2.0**-14 / 12 * 3 / (8 * math.log(2))


@dataclass(frozen=True)
class BFloat16(Precision):
    """bfloat16 rows and weights, float32 sums: about 0.3 % error and half the bytes.

    On a CPU without native bfloat16 products it would be emulated, up to four times slower than float32: there it is refused.

    Args:
        packed: lay the weights out for oneDNN on load: 1.1 times as fast at 512 rows and 3 times at one, but a frozen module
            can then not be saved (see `Prepacked`).

    Example:
        >>> light = BFloat16().fit(nn.Linear(1024, 4096))
        >>> light(torch.randn(8, 1024)).dtype
        torch.float32
    """

    packed: bool = False
    bits = 16

    def check_machine(self) -> None:
        """Refuse CPUs without native bfloat16."""
        if not (here := capability()).bf16:
            raise InputError(f"{self} needs a CPU with native bfloat16 products (AVX-512 BF16); this is {here}")

    def linear(self, weight: Tensor, bias: Tensor | None, rows: Tensor | None) -> nn.Module:
        """See `Precision.linear`."""
        if not self.packed:
            return BFloat16Linear(weight, bias)
        return PackedLinear(weight.to(torch.bfloat16), None if bias is None else bias.to(torch.bfloat16))

    def noise(self, weight: Tensor, rows: Tensor, share: Tensor) -> Tensor:
        """See `Precision.noise`: the row, the weights and the result are each rounded."""
        parts = weight.square() @ (share @ rows.square())
        return ROUNDING * (2 * parts + share @ (rows @ weight.t()).square())
