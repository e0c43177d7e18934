"""Splitting a budget over sites: each takes the option that makes all of them together cheapest.

Errors of several sites are taken to add up like independent ones: the root of the sum of their squares is to keep the budget. With
one multiplier m for all sites, each site's option is that of the least `cost + m harm^2`, whatever the others take; the smallest m
whose options keep the budget is found by bisection (H. Everett, "Generalized Lagrange Multiplier Method", 1963). There may be
better options between two multipliers: what is left of the budget is spent on single sites, the greatest saving first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

BISECTIONS = 60


class Option(NamedTuple):
    """What a site could be given.

    Attributes:
        cost: of the site, in a unit that all sites share.
        harm: deviation of the model's output that comes of it alone.
    """

    cost: float
    harm: float


def split(options: Mapping[str, Sequence[Option]], budget: float) -> dict[str, int]:
    """Return the index of each site's option, of least cost together; sites that have no harmless one may exceed the budget.

    Example:
        >>> split({"a": [Option(1, 0), Option(0.2, 3)], "b": [Option(1, 0), Option(0.5, 1)]}, budget=3)
        {'a': 1, 'b': 0}
    """
    squares = {name: [o.harm**2 for o in of] for name, of in options.items()}

    def at(multiplier: float) -> dict[str, int]:
        return {
            name: min(range(len(of)), key=lambda i: (of[i].cost + multiplier * squares[name][i], of[i].harm))
            for name, of in options.items()
        }

    def total(taken: Mapping[str, int]) -> float:
        return sum(squares[name][i] for name, i in taken.items())

    most = budget**2 * (1 + 1e-9)
    if total(best := at(0.0)) <= most:
        return best
    low, high = -100.0, 100.0  # log of the multiplier
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if total(at(math.exp(middle))) <= most else (middle, high)
    return _spent(options, at(math.exp(high)), most)


def _spent(options: Mapping[str, Sequence[Option]], taken: dict[str, int], most: float) -> dict[str, int]:
    """Return options that spend more of the budget, one site changed at a time."""
    while True:
        left = most - sum(options[name][i].harm ** 2 for name, i in taken.items())
        saved, name, index = max(
            (
                (options[name][taken[name]].cost - option.cost, name, index)
                for name, of in options.items()
                for index, option in enumerate(of)
                if option.harm**2 - of[taken[name]].harm ** 2 <= left
            ),
            default=(0.0, "", 0),
        )
        if saved <= 0:
            return taken
        taken = {**taken, name: index}
