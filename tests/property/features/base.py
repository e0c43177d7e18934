"""What a feature is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.property.draft import Draft


@dataclass(frozen=True)
class Feature:
    """Something that a module may do.

    Attributes:
        share: of the modules that it fits.
        write: adds it to a draft.
        fits: whether a draft can have it.
    """

    name: str
    share: float
    write: Callable[[Draft], None]
    fits: Callable[[Draft], bool] = lambda _: True


def part(name: str, share: float, *choices: str) -> Feature:
    """A feature that is one line of several, without names to fill in."""
    return Feature(name, share, lambda d: d.part(d.rng.choice(choices)))
