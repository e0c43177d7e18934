"""The numerics that dendrofx works in, whatever its caller has switched on, and how far equal results may be apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Live rows are summed in other orders and other row counts: what may move, relative to the largest value of an output.
ROUNDING = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def rounding(*dtypes: torch.dtype) -> float:
    """Return what rounding may move where values of these types take part; that of float32 for others."""
    return max((ROUNDING.get(d, ROUNDING[torch.float32]) for d in dtypes), default=ROUNDING[torch.float32])


@contextmanager
def plain_numerics() -> Iterator[None]:
    """Work without autocast, gradients and inference mode, and with float32 as the default type.

    Autocast would change what is measured, and tensors of inference mode could never be written to again. These are settings of
    this thread; torch has one default type for all threads, which is therefore only touched where it is another.

    Example:
        >>> with plain_numerics():
        ...     torch.zeros(1).dtype
        torch.float32
    """
    default = torch.get_default_dtype()
    with torch.inference_mode(False), torch.no_grad(), torch.autocast("cpu", enabled=False):
        if default is torch.float32:
            yield
            return
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(default)
