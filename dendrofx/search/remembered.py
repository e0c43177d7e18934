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
from weakref import WeakKeyDictionary

from torch import nn

T = TypeVar("T")


@dataclass(frozen=True)
class Remembered:
    """What is known.

    Attributes:
        fits: what was fitted, by all that it depends on.
        times: ms of parts, by what the profiler calls them.
        made: what was made of a module, such as its scripted form, for as long as the module lives.
    """

    fits: dict[Hashable, Any] = field(default_factory=dict)
    times: dict[str, float] = field(default_factory=dict)
    made: WeakKeyDictionary[nn.Module, dict[Hashable, Any]] = field(default_factory=WeakKeyDictionary)


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


def fitted_once(key: Hashable | None, fit: Callable[[], T]) -> T:
    """Return what is known by a key, or fit it; without a key, and where nothing is remembered, always fit it."""
    known = _KNOWN.get()
    return fit() if known is None or key is None else _once(known.fits, key, fit)


def made_once(module: nn.Module, key: Hashable, make: Callable[[], T]) -> T:
    """Return what is known to be made of a module, or make it."""
    known = _KNOWN.get()
    return make() if known is None else _once(known.made.setdefault(module, {}), key, make)


def _once(known: dict[Hashable, Any], key: Hashable, make: Callable[[], T]) -> T:
    if key not in known:
        known[key] = make()
    found: T = known[key]
    return found


def known_times() -> dict[str, float]:
    """Return the times that are known, to add to; where nothing is remembered, none."""
    known = _KNOWN.get()
    return {} if known is None else known.times
