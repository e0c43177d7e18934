r"""Sites: the places of a traced graph where a row may take another way.

A site is a maximal chain  Linear (activation Linear)*  of calls in the graph:

    x -> fc1 -> gelu -> dropout -> fc2 -> y          one site, "fc1..fc2"
    x -> head -> y                                   one site, "head" (a chain of one)
    x -> fc1 -> gelu -> fc2 -> y                     two sites, "fc1" and "fc2": gelu has a second user
                   \-> + ...

A module called twice is two sites, "head" and "head#2". Nothing is skipped in silence: what cannot be a site is a
`Refusal` with its reason and node.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from tabulate import tabulate

from dendrofx.errors import InputError

WIDTH = 98  # of a printed table
MOST_NAMES = 4  # in a short text


@dataclass(frozen=True)
class Refusal:
    """Why a site is not routed, and the node that decides it (None when the module is not called in the graph)."""

    site: str
    reason: str
    node: str | None = None


@dataclass(frozen=True)
class Site:
    """One candidate for routing.

    Attributes:
        name: what tables and `sites=` call it.
        nodes: names of its graph nodes, first Linear to last Linear.
        linears: names of the `nn.Linear` modules it calls, in order.
        widths: features of its input, of every hidden value and of its output.

    Example:
        >>> wide = dendrofx.transform(model, calibration=batches, sites=lambda site: site.widths[0] >= 64)
    """

    name: str
    nodes: tuple[str, ...]
    linears: tuple[str, ...]
    widths: tuple[int, ...]

    @property
    def macs(self) -> int:
        """Multiply-adds per row of the full block."""
        return sum(a * b for a, b in pairwise(self.widths))

    @property
    def shape(self) -> str:
        """`256 -> 1024 -> 256`."""
        return " -> ".join(map(str, self.widths))


Selector = str | Sequence[str] | Callable[[Site], bool] | None


@dataclass(frozen=True)
class Sites(Sequence[Site]):
    """The sites of one graph, in graph order, and the refusals found on the way.

    Example:
        >>> [site.name for site in dendrofx.find_sites(model)]
    """

    found: tuple[Site, ...]
    refused: tuple[Refusal, ...] = field(default=())

    def __getitem__(self, index: int) -> Site:  # type: ignore[override]
        return self.found[index]

    def __len__(self) -> int:
        return len(self.found)

    def __iter__(self) -> Iterator[Site]:
        return iter(self.found)

    def __repr__(self) -> str:
        names = ", ".join(s.name for s in self.found[:MOST_NAMES])
        more = f" and {len(self) - MOST_NAMES} more" if len(self) > MOST_NAMES else ""
        return f"<Sites: {len(self)} found, {len(self.refused)} refused{': ' * bool(self.found)}{names}{more}>"

    def __str__(self) -> str:
        rows = [[s.name, s.shape, s.macs, "candidate"] for s in self.found]
        rows += [[r.site, "", "", f"refused: {r.reason}"] for r in self.refused]
        heads = ["site", "shape", "MACs/row", "status"]
        others = [max(len(str(cell)) for cell in column) for column in list(zip(heads, *rows, strict=True))[:3]]
        room = max(WIDTH - sum(others) - 6, 24)
        return tabulate(rows, heads, "simple", maxcolwidths=[None, None, None, room])

    def expect(self, count: int) -> Sites:
        """Return itself when there are `count` sites, otherwise an `InputError` that lists them."""
        if len(self) != count:
            raise InputError(f"expected {count} sites, found {len(self)}:\n{self}")
        return self

    def select(self, selector: Selector) -> Sites:
        """Keep what `selector` names; the others become refusals.

        Args:
            selector: a site or module name or a shell pattern (`"blocks.*"`), several of them, a predicate on
                `Site`, or None for all.

        Raises:
            InputError: a name or pattern that matches no site.
        """
        if selector is None:
            return self
        if callable(selector):
            kept = tuple(s for s in self.found if selector(s))
        else:
            patterns = [selector] if isinstance(selector, str) else selector
            if not isinstance(patterns, Sequence) or not all(isinstance(p, str) for p in patterns):
                raise InputError(f"sites= takes names, patterns or a predicate on Site, got {selector!r}")
            for pattern in patterns:
                if not any(_matches(s, pattern) for s in self.found):
                    names = ", ".join(s.name for s in self.found) or "none"
                    raise InputError(f"sites={pattern!r} matches no site; the model has: {names}")
            kept = tuple(s for s in self.found if any(_matches(s, p) for p in patterns))
        out = tuple(Refusal(s.name, "not selected by sites=", s.nodes[-1]) for s in self.found if s not in kept)
        return Sites(kept, self.refused + out)


def _matches(site: Site, pattern: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for name in (site.name, *site.linears))
