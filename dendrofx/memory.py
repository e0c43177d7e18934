"""Giving memory back: what a stage has freed should not count in the next stage's peak."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from functools import cache


def release() -> None:
    """Collect cycles (graph modules have many) and return freed pages to the system, where its C library can (glibc's malloc_trim).

    Tensors of some megabytes are cut from the heap, and a freed one stays there: a tuned model's process would keep hundreds of
    megabytes that nothing uses.
    """
    gc.collect()
    if (trim := _trim()) is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    """Glibc's function; None on other systems."""
    try:
        found: Callable[[int], int] = ctypes.CDLL("libc.so.6").malloc_trim
    except (OSError, AttributeError):
        return None
    return found
