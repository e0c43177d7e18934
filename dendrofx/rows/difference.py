"""How far apart two values of one output are that should be equal up to rounding."""

from __future__ import annotations

import torch
from torch import Tensor

from dendrofx.values import numerics

# Of float32. Where other rows change, the same ones do not even round in another way: it holds for every type.
ROUNDING = numerics.ROUNDING[torch.float32]


def difference(a: Tensor, b: Tensor, among: Tensor | None = None) -> float:
    """Return the largest difference, relative to the largest value of `among`, or of `a`; infinite where one alone is NaN."""
    if not a.numel():
        return 0.0
    scale = max(float((a if among is None else among).double().nan_to_num().abs().max()), 1e-30)
    far = (a.double() - b.double()).abs()
    far = torch.where((a == b) | (a.isnan() & b.isnan()), 0.0, far).nan_to_num(nan=torch.inf)
    return float(far.max()) / scale
