"""Progress bars: for a person at a terminal, after two seconds; a log gets none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(items: Iterable[T], doing: str, unit: str = "it", total: int | None = None) -> Iterable[T]:
    """Show how far a loop over `items` is, on stderr where that is a terminal; the bar goes when the loop ends.

    Example:
        >>> for site in progress(sites, "timing sites", "site"):
        ...     time(site)
    """
    return tqdm(items, desc=doing, unit=unit, total=total, delay=2, leave=False, disable=None)
