"""Linears that hold their weights as plain tensors, in place of those that lay them out for one library's kernel.

8-bit products are exact sums of whole numbers. `torch._int_mm` makes them in integers, and without VNNI in plain loops; there they
are summed in float32 instead, exactly as well while they stay below 2^24 (rows of up to 2,064 numbers by 7-bit weights), and to
seven digits beyond.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dendrofx.runtime import branches, fused_int8, int8, kernels, packed


class PackedLinear(packed.PackedLinear):
    """By `F.linear`, in the precision of the weight, with the activation after it."""

    def forward(self, x: Tensor) -> Tensor:
        """Map f32[N, in] to f32[N, out]."""
        return self.product(x.to(self.plain.dtype)).to(torch.float32)

    def product(self, block: Tensor) -> Tensor:
        """Map rows to their output, in the dtype of the weight."""
        out = F.linear(block, self.plain, self.bias)
        return F.gelu(out, approximate=self.algorithm) if self.pointwise == "gelu" else out


class BFloat16Linear(kernels.BFloat16Linear):
    """By `F.linear`, of all rows at once."""

    def forward(self, x: Tensor) -> Tensor:
        """Map f32[N, in] to f32[N, out]."""
        return F.linear(x.to(torch.bfloat16), self.weight, self.bias).to(torch.float32)


class PackedChain(branches.PackedChain):
    """Layer by layer, of all rows at once."""

    def forward(self, x: Tensor) -> Tensor:
        """Map f32[N, in] to f32[N, out]."""
        for layer, activation in zip(self.layers, self.activations, strict=True):
            x = activation(layer(x))
        return x


class Int8Linear(int8.Int8Linear):
    """By `torch._int_mm`, nothing in place."""

    def quantise(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return i8[N, in] and the rows' largest magnitudes f32[N, 1]."""
        x = self.shrunk(x)
        largest = x.abs().amax(1, True).clamp_min(1e-30)
        return (x * (127.0 / largest)).round().to(torch.int8), largest

    def shrunk(self, x: Tensor) -> Tensor:
        """Return f32[N, in], what is quantised; the run time's `x.data` is a constant to `torch.export`."""
        return x if self.shrink is None else x * self.shrink

    def product(self, q: Tensor, largest: Tensor) -> Tensor:
        """Compute f32[N, out] from i8[N, in]."""
        weight = self.weight
        if weight.size(1) == 1:  # the product is refused, in silence, for one column
            q, weight = F.pad(q, [0, 1]), F.pad(weight, [0, 1])
        y = torch._int_mm(q, weight.t()).to(torch.float32) * largest * self.scale
        return y if self.bias is None else y + self.bias


class FusedInt8Linear(fused_int8.FusedInt8Linear):
    """By a product of floats that are whole numbers."""

    def shrunk(self, x: Tensor) -> Tensor:
        """Return f32[N, in], what is quantised; see `Int8Linear`."""
        return x if self.shrink is None else x * self.shrink

    def quantise(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return f32[N, in] in -127 .. 127, whole numbers, and the rows' largest magnitudes f32[N, 1]."""
        x = self.shrunk(x)
        largest = x.abs().amax(1, True).clamp_min(1e-30)
        return (x / largest * 127.0).round(), largest

    def product(self, q: Tensor, largest: Tensor) -> Tensor:
        """Compute f32[N, out] from f32[N, in]."""
        y = F.linear(q, self.weight.to(torch.float32)) * (largest * (1.0 / 127.0)) * self.scale
        return y if self.bias is None else y + self.bias
