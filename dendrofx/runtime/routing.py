"""The run time of a routed site: plain functions that TorchScript compiles.

The leaf modules are in `runtime/leaves.py`, what a call counts is in `runtime/route_counts.py`.

A routed site is six nodes of the graph (`passes/route_rows.py` draws them):

    rows  = as_rows(x)                      [..., in] -> [N, in]
    score = gate(rows)                      f32[N]
    split = split_rows(score, tolerance)    which rows take which branch
    light = light(rows, split)              none where every row is hard; else all rows, or the easy ones
    full  = full(rows, light, split)        none hard: light; all hard: full; mixed: gather, full, scatter
    y     = restore_rows(full, x)           [N, out] -> [..., out]
"""

from typing import NamedTuple

import torch
from torch import Tensor

from dendrofx.runtime.kernels import is_dense

# Float32 values that can be gathered and scattered in the time of one multiply-add of a light branch, inverted: moving
# one value costs about this many multiply-adds (measured, see README, Run time). Decides between light on all rows and
# light on the easy ones.
MACS_PER_MOVED_VALUE = 64


class Split(NamedTuple):
    """Which rows take which branch.

    `hard` is i64[hard_rows] where both branches run; `easy` is i64[easy rows] where, besides, the light branch runs on the
    easy rows only. Where they are not needed, their content has no meaning.
    """

    hard: Tensor
    easy: Tensor
    rows: int
    hard_rows: int
    easy_only: bool


def dtype_name(x: Tensor) -> str:
    """Return a name such as `torch.float64`; TorchScript has numbers for them, which it also prints."""
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        return str(x.dtype)
    names = [
        "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64", "complex32", "complex64", "complex128",
        "bool", "qint8", "quint8", "qint32", "bfloat16",
    ]  # fmt: skip
    number: int = x.dtype  # type: ignore[assignment]
    return f"torch.{names[number]}" if number < len(names) else "of another dtype"


@torch.jit.unused
def refuse_autocast(site: str) -> None:
    """Raise under autocast, in which gate and branches would compute in another dtype than their tolerance was found in."""
    if torch.is_autocast_enabled("cpu"):
        raise RuntimeError(
            f"site '{site}' is called under torch.autocast, but its tolerance was found in float32: call it outside, or under"
            " torch.autocast('cpu', enabled=False)"
        )


def as_rows(x: Tensor, width: int, site: str) -> Tensor:
    """Map [..., width] to [N, width], without a copy where the layout allows.

    Raises:
        RuntimeError: another width or dtype, quoting both and the site; rows that are not dense; or autocast, which would run the
            branches in another dtype.
    """
    # TorchScript crashes where it is asked for autocast (torch 2.13); there `restore_rows` sees what it does
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        refuse_autocast(site)
    if not is_dense(x):
        raise RuntimeError(
            f"rows are a sparse, nested or mkldnn tensor, site '{site}' takes dense ones: pass .to_dense()"
        )
    if x.dim() == 0 or x.size(-1) != width:
        raise RuntimeError(f"rows are shaped {x.size()}, site '{site}' takes {width} features: pass [..., {width}]")
    if x.dtype != torch.float32:
        low = x.dtype == torch.bfloat16 or x.dtype == torch.float16
        step = ", and call it outside of torch.autocast" if low else ""
        raise RuntimeError(
            f"rows are {dtype_name(x)}, site '{site}' takes torch.float32: cast the input with .float(){step}"
        )
    return x if x.dim() == 2 else x.reshape(-1, width)


def split_rows(score: Tensor, tolerance: Tensor, easy_only_from: float) -> Split:
    """Split rows by `~(score < tolerance)`, which are hard: NaN and infinity are, and tolerance 0 makes all hard.

    Args:
        score: f32[N], from the gate.
        tolerance: f32[], the site's threshold.
        easy_only_from: share of hard rows from which the light branch runs on the easy rows only.
    """
    easy = score < tolerance
    rows = score.size(0)
    hard_rows = rows - int(easy.sum().item())
    if hard_rows == rows or hard_rows == 0:  # one branch takes all: no row needs to be found
        return Split(easy, easy, rows, hard_rows, False)
    hard = (~easy).nonzero().squeeze(1)
    if hard_rows < easy_only_from * rows:
        return Split(hard, easy, rows, hard_rows, False)
    return Split(hard, easy.nonzero().squeeze(1), rows, hard_rows, True)


def restore_rows(rows: Tensor, x: Tensor) -> Tensor:
    """Give rows [N, out] the leading dimensions of x, [..., out]; raises as `check_dtype`."""
    check_dtype(rows, x)
    return rows if x.dim() == 2 else rows.reshape(x.shape[:-1] + rows.shape[1:])


def check_dtype(rows: Tensor, x: Tensor) -> None:
    """Raise where a branch computed in another dtype than x has, as it does under autocast."""
    if rows.dtype != x.dtype:
        raise RuntimeError(
            f"a routed site computed in {dtype_name(rows)}, but its tolerance was found in float32: call it outside of"
            " torch.autocast"
        )


def require_finite(rows: Tensor, site: str) -> None:
    """Raise where a row is not finite and there is no full branch to run it on."""
    if bool(torch.isfinite(rows.sum())):  # one pass; where it overflows, or not, a second one tells
        return
    finite = torch.isfinite(rows).all(1)
    if not bool(finite.all()):
        row = int((~finite).nonzero()[0].item())
        raise RuntimeError(
            f"row {row} is not finite, and site '{site}' has no full branch to run it on: transform without gate='optional' to"
            " keep one"
        )


def easy_only_from(light_macs: int, in_width: int, out_width: int) -> float:
    """Return the share of hard rows from which gathering the easy rows is cheaper than running light on all.

    Light on all rows wastes `hard * light_macs`; the easy rows alone cost `easy * (in + out)` moved values more.
    """
    moved = MACS_PER_MOVED_VALUE * (in_width + out_width)
    return moved / max(moved + light_macs, 1)
