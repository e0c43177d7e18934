"""The difference of two outputs at their worst entry; `numerics.py` says how much of it rounding may make."""

from __future__ import annotations

import torch
from torch import Tensor

from dendrofx.values.outputs import Output


def difference(wanted: Output, got: Output) -> float:
    """Return the largest difference over the largest magnitude.

    It is infinity for another form, other shapes or types, and other values that are no floats.
    """
    if wanted[1] != got[1] or [(t.shape, t.dtype) for t in wanted[0]] != [(t.shape, t.dtype) for t in got[0]]:
        return float("inf")
    return max((tensor_difference(a, b) for a, b in zip(wanted[0], got[0], strict=True)), default=0.0)


def tensor_difference(wanted: Tensor, got: Tensor) -> float:
    """Return the largest difference of two tensors of one shape and type, over the largest magnitude of the first."""
    if not wanted.is_floating_point():
        return 0.0 if torch.equal(wanted, got) else float("inf")
    a, b = wanted.double(), got.double()
    same = (a == b) | (a.isnan() & b.isnan())
    if bool(same.all()):
        return 0.0
    if not torch.equal(a.isfinite(), b.isfinite()):
        return float("inf")
    far = torch.where(same, 0.0, a - b).abs().max()
    return float(far) / max(float(torch.where(a.isfinite(), a, 0.0).abs().max()), 1e-30)
