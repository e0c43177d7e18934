"""The Linears in 8-bit integers, one class per kernel that multiplies: what they share, and the one by `torch._int_mm`.

    y = a / 127 s (q p') + b        a = max |x|, q = round(127 x / a), p the 8-bit weights, s their steps

    Int8Linear         torch._int_mm: for CPUs with VNNI; on others right for |p| <= 64, but nested loops at worst
    FusedInt8Linear    fbgemm, fast without VNNI, |p| <= 64 (`fused_int8.py`)

Both compute the same function: they differ by the order of three roundings, and by which whole number a half rounds to.
"""

from typing import Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Int8Layer(nn.Module):
    """What the kernels share. Their work around the product makes as few passes over memory as ATen allows.

    Args:
        weight: i8[out, in].
        scale: f32[out], kept as it is.
        bias: f32[out] or None.
        shrink: f32[in], what each column of x is multiplied by first, or None.
    """

    weight: Tensor
    scale: Tensor
    bias: Optional[Tensor]
    shrink: Optional[Tensor]

    def __init__(self, weight: Tensor, scale: Tensor, bias: Optional[Tensor], shrink: Optional[Tensor]) -> None:
        super().__init__()
        self.register_buffer("weight", weight.contiguous())
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)
        self.register_buffer("shrink", shrink)
        self.macs = int(weight.numel())
        self.bits = 8
        self.converts = int(weight.size(0) + weight.size(1))

    def step(self) -> Tensor:
        """Return f64[out], one step of each output channel's weights."""
        raise NotImplementedError

    def quantise(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Return the rows as the product takes them, [N, in], and their largest magnitudes f32[N, 1], at least 1e-30."""
        raise NotImplementedError

    def product(self, q: Tensor, largest: Tensor) -> Tensor:
        """Compute f32[N, out] from quantised rows."""
        raise NotImplementedError

    def shrunk(self, x: Tensor) -> Tensor:
        """Return f32[N, in], what is quantised."""
        x = x.data  # gradients do not pass rounding; freezing would drop detach()
        shrink = self.shrink
        return x if shrink is None else x * shrink

    def forward(self, x: Tensor) -> Tensor:
        """Map f32[N, in] to f32[N, out]."""
        q, largest = self.quantise(x)
        return self.product(q, largest)

    def scales(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Return the output, and f32[N, 1]: the row's largest magnitude, which quantising takes anyway."""
        q, largest = self.quantise(x)
        return self.product(q, largest), largest

    def observe(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Return the output, and f32[N, 2]: the row's norm and its largest magnitude, both after shrinking."""
        q, largest = self.quantise(x)
        shrink = self.shrink
        seen = x if shrink is None else x * shrink
        return self.product(q, largest), torch.cat([torch.linalg.vector_norm(seen, 2, 1, True), largest], 1)

    def extra_repr(self) -> str:
        """Print `1024 -> 4096, int8`."""
        return f"{self.weight.size(1)} -> {self.weight.size(0)}, int8"


class Int8Linear(Int8Layer):
    """By `torch._int_mm`: the product in 8-bit integers, accumulated in 32 bits, exactly.

    One buffer serves |x| and x / a, and the result is scaled in place.

    Args:
        weight, bias, shrink: see `Int8Layer`.
        scale: f32[out], one step of each output channel's weights.
    """

    weight: Tensor
    scale: Tensor
    bias: Optional[Tensor]
    shrink: Optional[Tensor]

    def __init__(self, weight: Tensor, scale: Tensor, bias: Optional[Tensor], shrink: Optional[Tensor]) -> None:
        super().__init__(weight, scale / 127.0, bias, shrink)  # a row's own scale is its largest entry, not its step

    def step(self) -> Tensor:
        """Return f64[out], one step of each output channel's weights."""
        return self.scale.double() * 127

    def quantise(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Return i8[N, in] and the rows' largest magnitudes f32[N, 1]."""
        x = self.shrunk(x)
        # a new buffer in row order: the product is refused, in silence, for the strides of some transposed rows
        buffer = torch.abs(x, out=torch.empty([x.size(0), x.size(1)], dtype=torch.float32))
        largest = buffer.amax(1, True).clamp_min_(1e-30)
        torch.mul(x, 127.0 / largest, out=buffer)
        return buffer.round_().to(torch.int8), largest

    def product(self, q: Tensor, largest: Tensor) -> Tensor:
        """Compute f32[N, out] from i8[N, in]."""
        weight = self.weight
        if weight.size(1) == 1:  # the product is refused, in silence, for one column
            q, weight = F.pad(q, [0, 1]), F.pad(weight, [0, 1])
        y = torch._int_mm(q, weight.t()).to(torch.float32).mul_(largest)
        bias = self.bias
        if bias is not None:
            return torch.addcmul(bias, y, self.scale, out=y)
        return y.mul_(self.scale)
