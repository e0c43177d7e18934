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


def sized(name: str, share: float, *choices: str) -> Feature:
    """A feature that reads a size: one of several texts, of which a line break makes lines; {t} is a tensor, {a} an axis of it."""

    def write(d: Draft) -> None:
        tensor, axis = d.sized()
        text = d.rng.choice(choices) if len(choices) > 1 else choices[0]  # nothing is drawn where there is no choice
        d.part(*text.format(t=tensor, a=axis).split("\n"))

    return Feature(name, share, write)


def part(name: str, share: float, *choices: str) -> Feature:
    """A feature that is one line of several, without names to fill in."""
    return Feature(name, share, lambda d: d.part(d.rng.choice(choices)))
