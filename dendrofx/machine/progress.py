"""Progress on one line: for a person at a terminal, after two seconds; a log gets none.

batch 32 (2 of 3): fitting sites 3/5, 0:41, about 0:30 left
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
_LINE = "{desc} {n_fmt}/{total_fmt}, {elapsed}, about {remaining} left"
_within: ContextVar[str] = ContextVar("within", default="")


def progress(items: Iterable[T], doing: str, unit: str = "it", total: int | None = None) -> Iterable[T]:
    """Show how far a loop over `items` is, on stderr where that is a terminal; the line goes when the loop ends.

    Example:
        >>> for site in progress(sites, "timing sites", "site"):
        ...     time(site)
    """
    desc = f"{_within.get()}{doing}"
    return tqdm(items, desc=desc, unit=unit, total=total, delay=2, leave=False, disable=None, bar_format=_LINE)


@contextmanager
def within(part: str) -> Iterator[None]:
    """Name the part of a longer run, in front of what is shown of the loops inside.

    Example:
        >>> with within("batch 32 (2 of 3)"):
        ...     transform(model)
    """
    token = _within.set(f"{part}: ")
    try:
        yield
    finally:
        _within.reset(token)
