"""Int8: every Linear in 8-bit integers, each row and each output channel with a scale of its own.

    x ~ a q / 127        a = max |x|, q = round(127 x / a)                     one a per row
    W ~ s p              s = max |W[j]| / 127, p = round(W[j] / s)             one s per output channel j
    y = a s / 127 (q p') + b                                                   the product is exact in 32-bit integers

A row's scale is its own, so no row can touch another's result; one scale for a whole batch would let a single outlier row
cost all others 37 % of their accuracy. A row's own outliers still cost it: `smooth` moves large columns of x into the
weights, x W' = (x / f)(W f)' with f = max|x_i|^smooth / max|W_i|^(1 - smooth) over the calibration rows (Xiao et al.,
SmoothQuant, arXiv 2211.10438).

Without VNNI pairs of products are added in 16 bits, which overflow for full 8-bit weights and are safe for |p| <= 64
(`runtime/fbgemm.py`): there the form is refused unless `weight_bits=7`. Which kernel multiplies is settled when the form is
fitted: `torch._int_mm` where the CPU has VNNI, else fbgemm, else `torch._int_mm` again, right but slow. The function is the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dendrofx.errors import InputError
from dendrofx.light.form import Precision
from dendrofx.machine.capability import capability
from dendrofx.runtime.fbgemm import LARGEST_WEIGHT
from dendrofx.runtime.fused_int8 import FusedInt8Linear
from dendrofx.runtime.int8 import Int8Layer, Int8Linear

LARGEST = {8: 127, 7: LARGEST_WEIGHT}


@dataclass(frozen=True)
class Int8(Precision):
    """8-bit rows times 8-bit (or 7-bit) weights.

    Args:
        weight_bits: 8, or 7 for CPUs without VNNI: up to 1.8 times the error of 8.
        smooth: share of the columns' spread that moves into the weights, 0 (none, no extra pass) to 1.

    Example:
        >>> light = Int8().fit(nn.Linear(1024, 4096))
        >>> light(torch.randn(8, 1024)).shape
        torch.Size([8, 4096])
    """

    weight_bits: int = 8
    smooth: float = 0.0
    bits = 8

    def __post_init__(self) -> None:
        if self.weight_bits not in LARGEST:
            raise InputError(f"weight_bits must be 8 or 7, got {self.weight_bits}")
        if not 0 <= self.smooth <= 1:
            raise InputError(f"smooth must be in [0, 1], got {self.smooth}")

    @property
    def needs_rows(self) -> bool:  # type: ignore[override]
        """Whether `fit` needs calibration rows."""
        return self.smooth > 0

    def check_machine(self) -> None:
        """Refuse full 8-bit weights without VNNI."""
        here = capability()
        if self.weight_bits == 8 and not (here.vnni and here.int8_exact):
            raise InputError(
                f"{self} needs a CPU with VNNI: without it, sums of 8-bit products overflow (this is {here});"
                " take Int8(weight_bits=7)"
            )

    def linear(self, weight: Tensor, bias: Tensor | None, rows: Tensor | None) -> nn.Module:
        """See `Precision.linear`."""
        shrink = None
        if self.smooth > 0:
            assert rows is not None
            factor = _smoothing(weight, rows, self.smooth)
            weight, shrink = weight * factor, 1 / factor
        step = weight.abs().amax(1).clamp_min(1e-30) / LARGEST[self.weight_bits]
        return self._kernel()(torch.round(weight / step[:, None]).to(torch.int8), step, bias, shrink)

    def noise(self, weight: Tensor, rows: Tensor, share: Tensor) -> Tensor:
        """See `Precision.noise`: the model of `NoiseGate`, save that a value below half a step errs by no more than itself."""
        if self.smooth > 0:
            factor = _smoothing(weight, rows, self.smooth)
            weight, rows = weight * factor, rows / factor
        squares = rows.square()
        step = rows.abs().amax(1, keepdim=True) / 127
        step_w = weight.abs().amax(1, keepdim=True) / LARGEST[self.weight_bits]
        rounded = torch.minimum(squares, step.square() / 12)
        rounded_w = torch.minimum(weight.square(), step_w.square() / 12)
        return weight.square() @ (share @ rounded) + rounded_w @ (share @ squares)

    def _kernel(self) -> type[Int8Layer]:
        """Return what multiplies on this CPU."""
        here = capability()
        slow = not (here.vnni and here.int8_exact)
        return FusedInt8Linear if slow and here.fbgemm and self.weight_bits == 7 else Int8Linear


def _smoothing(weight: Tensor, rows: Tensor, share: float) -> Tensor:
    """Return f32[in], the columns' factors, around 1; columns that never move keep theirs."""
    columns, weights = rows.abs().amax(0), weight.abs().amax(0)
    factor = columns.clamp_min(1e-12).pow(share) / weights.clamp_min(1e-12).pow(1 - share)
    factor[(columns == 0) | (weights == 0)] = 1.0
    centre = factor.log().mean().exp()  # a common factor changes nothing: rows have their own scale
    return (factor / centre).clamp(1e-4, 1e4)
