"""How far something long came that was ended from outside: said in the error, whoever raised it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def stage(doing: str) -> Iterator[None]:
    """Name what is done in the block, for whoever ends it with Ctrl-C.

    Example:
        >>> with stage("the model was captured"):
        ...     raise KeyboardInterrupt
        Traceback (most recent call last):
        KeyboardInterrupt: while the model was captured; the model and its data are as they were
    """
    try:
        yield
    except KeyboardInterrupt as error:
        error.args = error.args or (f"while {doing}; the model and its data are as they were",)
        raise


def numbered(items: Iterable[T], what: str) -> Iterator[T]:
    """Yield items; an error that making one raises has a note that says which (Python 3.11 and newer).

    Args:
        items: read once.
        what: one of them is, such as "calibration batch".
    """
    iterator, number = iter(items), 0
    while True:
        try:
            item = next(iterator)
        except StopIteration:
            return
        except Exception as error:
            if hasattr(error, "add_note"):
                error.add_note(f"while {what} {number} was read")
            raise
        yield item
        number += 1
