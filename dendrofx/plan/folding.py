"""Sites that are alike, under one name: `encoder.layer.*.output.dense x 6`."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Sequence

from dendrofx.plan.entries import SitePlan

MOST_NAMES = 3  # of one reason; further ones are counted


def grouped(sites: Iterable[SitePlan], key: Callable[[SitePlan], Hashable]) -> list[list[SitePlan]]:
    """Return the sites with the same key together, in the order of the first of each."""
    groups: dict[Hashable, list[SitePlan]] = {}
    for site in sites:
        groups.setdefault(key(site), []).append(site)
    return list(groups.values())


def patterns(names: Sequence[str]) -> list[tuple[str, int]]:
    """Return names that differ in one number as one, with `*` for it, and how many they are.

    A pattern is what `sites=` takes. Names without letters, such as `0..2`, stay as they are.

    Example:
        >>> patterns(["layer.0.fc", "layer.1.fc", "head"])
        [('layer.*.fc', 2), ('head', 1)]
    """
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(re.sub(r"\d+", "#", name), []).append(name)
    result: list[tuple[str, int]] = []
    for same in found.values():
        numbers = list(zip(*(re.findall(r"\d+", name) for name in same), strict=True))
        moving = [i for i, values in enumerate(numbers) if len(set(values)) > 1]
        if len(same) == 1 or len(moving) != 1 or not re.search(r"[A-Za-z]", same[0]):
            result += [(name, 1) for name in same]
            continue
        parts = re.split(r"(\d+)", same[0])
        parts[2 * moving[0] + 1] = "*"
        result.append(("".join(parts), len(same)))
    return result


def called(names: Sequence[str]) -> str:
    """Return what sites are called together: `layer.*.fc x 6, head and 3 more`."""
    found = patterns(names)
    shown = ", ".join(name if count == 1 else f"{name} x {count}" for name, count in found[:MOST_NAMES])
    rest = sum(count for _, count in found[MOST_NAMES:])
    return f"{shown} and {rest} more" if rest else shown
