"""Outputs compared, leaf by leaf, without the project's own code for that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

# Rounding that a leaf may have, relative L2: sums in another order; bfloat16 has 8 bits.
ROUNDING = {torch.bfloat16: 3e-2}


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of an output by path; a container's class is one too."""
    fields = _fields(value)
    if fields is None:
        yield path or "output", value
        return
    yield f"{path}:class", type(value)
    for key, inner in fields.items():
        yield from leaves(inner, f"{path}.{key}" if path else str(key))


def _fields(value: Any) -> dict[Any, Any] | None:
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "__dataclass_fields__"):
        return dict(vars(value))
    if hasattr(value, "_fields"):
        return dict(value._asdict())
    return dict(enumerate(value)) if isinstance(value, list | tuple) else None


def tensors(value: Any) -> dict[str, Tensor]:
    """The tensors of an output by path."""
    return {k: v for k, v in leaves(value) if isinstance(v, Tensor)}


def apart(wanted: Any, got: Any) -> str:
    """What differs, in words; empty when nothing does, but for rounding."""
    a, b = dict(leaves(wanted)), dict(leaves(got))
    if list(a) != list(b):
        return f"the output has {list(b)}, the original's {list(a)}"
    for path, value in a.items():
        if not isinstance(value, Tensor):
            if type(value) is not type(b[path]) or value != b[path]:
                return f"{path} is {b[path]!r}, the original's {value!r}"
        elif far := tensor_apart(value, b[path]):
            return f"{path} {far}"
    return ""


def tensor_apart(a: Tensor, b: Any) -> str:
    """What differs between two tensors, in words."""
    if not isinstance(b, Tensor) or (a.shape, a.dtype) != (b.shape, b.dtype):
        return f"is {_said(b)}, the original's {_said(a)}"
    far = relative(a.reshape(1, -1), b.reshape(1, -1)) if a.numel() else 0.0
    return f"is {100 * far:.3g} % off" if not far <= ROUNDING.get(a.dtype, 1e-5) else ""


def relative(a: Tensor, b: Tensor) -> float:
    """The mean over rows of the relative L2 distance; what holds no floats is equal or not."""
    if not a.is_floating_point():
        return 0.0 if torch.equal(a, b) else float("inf")
    x, y = a.double(), b.double()
    same = (x == y) | (x.isnan() & y.isnan())
    far = torch.where(same, 0.0, x - y).norm(dim=1)
    scale = torch.where(x.isfinite(), x, 0.0).norm(dim=1).clamp_min(1e-30)
    return float((far / scale).mean())


def _said(value: Any) -> str:
    return f"{value.dtype}{list(value.shape)}" if isinstance(value, Tensor) else repr(value)[:60]
