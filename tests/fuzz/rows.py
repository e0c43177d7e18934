"""An answer, row by row: each is the original's, or the light one where it may be light."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.fuzz.targets import MOST_APART, Target

ROUNDING = 1e-4  # of a row's largest value: sums in another order, of terms that cancel
OVERFLOWS = 1e30  # from here on a sum in another order may overflow


def wrong_rows(target: Target, given: list[Any], wanted: Any, got: Any) -> str:
    """What is wrong with an answer; empty where nothing is."""
    if not isinstance(got, Tensor) or (got.shape, got.dtype) != (wanted.shape, wanted.dtype):
        return f"it returns {_shown(got)}, the original {_shown(wanted)}"
    if got.device != wanted.device or got.layout != wanted.layout:
        return f"it returns a tensor on {got.device}, {got.layout}; the original on {wanted.device}, {wanted.layout}"
    if not wanted.numel() or wanted.is_meta:
        return ""
    with torch.no_grad():
        x, full, mine = (_rows(t) for t in (given[0], wanted, got))
        return _each_row(target, given, x, full, mine)


def _each_row(target: Target, given: list[Any], x: Tensor, full: Tensor, mine: Tensor) -> str:
    dead = _dead(given[1]).reshape(-1) if "mask" in target.names else torch.zeros(len(x), dtype=torch.bool)
    exact = near(mine, full, x)
    light = _light(target, given, full, mine, x)
    hard = must_be_hard(target, x)
    for bad, text in (
        (dead & mine.ne(0).any(1), "is dead and not zero"),
        (~dead & hard & ~exact, "must be hard and is not the original's"),
        (~dead & ~exact & ~light, "is neither the original's nor the light one"),
    ):
        if bool(bad.any()):
            row = int(bad.nonzero()[0])
            return f"row {row} {text}: {_few(mine[row])}, the original's {_few(full[row])}"
    return ""


def must_be_hard(target: Target, x: Tensor) -> Tensor:
    """Which rows no gate may judge: those that are not finite, or as long or as short as none that it was fitted to."""
    hard = ~x.isfinite().all(1)
    if target.norms is not None:
        hard |= (x.norm(dim=1) < target.norms[0]) | (x.norm(dim=1) > target.norms[1])
    return hard


def near(a: Tensor, b: Tensor, x: Tensor) -> Tensor:
    """Which rows are equal to rounding; where values are so large that sums may overflow, so far as both are finite."""
    both = a.isfinite() & b.isfinite()
    scale = torch.where(b.isfinite(), b, 0.0).abs().amax(1, keepdim=True)
    close = ((a - b).abs() <= ROUNDING * scale + 1e-30) | (a == b) | (a.isnan() & b.isnan())
    large = x.nan_to_num(0.0, 0.0, 0.0).abs().amax(1, keepdim=True) >= OVERFLOWS
    return (close | (large & ~both)).all(1)


def _light(target: Target, given: list[Any], full: Tensor, mine: Tensor, x: Tensor) -> Tensor:
    """Which rows are as they may be where they are light."""
    if target.light is None:
        apart: Tensor = (mine - full).norm(dim=1)
        return apart.le(MOST_APART * full.norm(dim=1))
    return near(mine, _rows(target.light(*given)), x)


def _rows(x: Tensor) -> Tensor:
    """f64[rows, features]."""
    dense: Tensor = x.detach().to_dense().double()
    return dense.reshape(-1, dense.size(-1))


def _dead(mask: Tensor) -> Tensor:
    """bool[batch, tokens]; a sample without any live row keeps all of them."""
    alive = mask != 0
    return ~(alive | ~alive.any(1, keepdim=True))


def _shown(value: Any) -> str:
    return f"{value.dtype}{list(value.shape)}" if isinstance(value, Tensor) else repr(value)[:60]


def _few(row: Tensor) -> str:
    return f"[{', '.join(f'{v:.4g}' for v in row[:3].tolist())}, ...]"
