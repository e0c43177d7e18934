"""Remember what was fitted and timed, for several transforms of one model on the same data.

A comparison transforms one model for every batch size, and once more for one light form on every row. What is fitted on the same
rows of the same block is the same each time, and so is the time of the same product on as many rows.

    known = Remembered()
    with remembering(known):
        transform(model, calibration=batches, batch_sizes=[1])
        transform(model, calibration=batches, batch_sizes=[256])  # fits nothing again
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Remembered:
    """What is known.

    Attributes:
        fits: what was fitted, by all that it depends on.
        times: ms of parts, by what the profiler calls them.
    """

    fits: dict[Hashable, Any] = field(default_factory=dict)
    times: dict[str, float] = field(default_factory=dict)


_KNOWN: ContextVar[Remembered | None] = ContextVar("known", default=None)


@contextmanager
def remembering(known: Remembered) -> Iterator[None]:
    """Let transforms inside use what is known, and add to it. Modules that they return share fitted branches."""
    token = _KNOWN.set(known)
    try:
        yield
    finally:
        _KNOWN.reset(token)


def is_remembering() -> bool:
    """Return whether anything is remembered here."""
    return _KNOWN.get() is not None


def fitted_once(key: Hashable, fit: Callable[[], T]) -> T:
    """Return what is known by a key, or fit it; where nothing is remembered, always fit it."""
    known = _KNOWN.get()
    if known is None:
        return fit()
    if key not in known.fits:
        known.fits[key] = fit()
    found: T = known.fits[key]
    return found


def known_times() -> dict[str, float]:
    """Return the times that are known, to add to; where nothing is remembered, none."""
    known = _KNOWN.get()
    return {} if known is None else known.times
