"""Layers that are alike, in a graph's items: found, so that the first can stand for all.

Stretches of items are alike where they make the same calls, of modules whose paths differ in numbers alone, with the same shapes
and constants, wired alike: inside a stretch, to the same values before all of them, or each to the one before as the first is to
what comes before it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import fx

from dendrofx.graph.spelling import Item, Speller
from dendrofx.values.meta import NOTE

FEWEST_LINES = 4  # that folding must save


@dataclass(frozen=True)
class Fold:
    """A stretch of items, or of alike stretches the first.

    Attributes:
        start, length: of the first stretch, in items.
        count: how many are alike; 1 for items that stand for themselves.
        carried: value before the first -> the item inside of each whose value the next one reads in its place.
    """

    start: int
    length: int
    count: int = 1
    carried: Mapping[fx.Node, int] = field(default_factory=dict)


class Folder:
    """Finds the folds of one graph.

    Args:
        gm: whose items they are.
        items: in order.
        headers: what is said of each site.
    """

    def __init__(self, gm: fx.GraphModule, items: Sequence[Item], headers: Mapping[str, str]) -> None:
        self.items = items
        self.place = {node: i for i, item in enumerate(items) for node in item.nodes}
        known: dict[str, int] = {}
        self.keys: list[int] = []
        self.refs: list[list[fx.Node]] = []
        self.size: list[int] = []
        for item in items:
            key, refs, size = _key(gm, item, headers)
            self.keys.append(known.setdefault(key, len(known)))
            self.refs.append(refs)
            self.size.append(size)

    def folds(self) -> list[Fold]:
        """Return the folds that cover all items, in order."""
        found, at, end = [], 0, len(self.items)
        while at < end:
            best = Fold(at, 1)
            for length in range(1, (end - at) // 2 + 1):
                fold = self._alike(at, length)
                if self._saved(fold) > self._saved(best):
                    best = fold
            best = self._turned(best) if self._saved(best) >= FEWEST_LINES else Fold(at, 1)
            found += [*(Fold(i, 1) for i in range(at, best.start)), best]
            at = best.start + best.length * best.count
        return found

    def _turned(self, fold: Fold) -> Fold:
        """Return a fold that starts where its stretches hand on the fewest values: where layers do, not in the midst of them."""
        turned = [self._alike(fold.start + i, fold.length) for i in range(fold.length)]
        return min((t for t in turned if t.count >= fold.count), key=lambda t: len(t.carried))

    def _saved(self, fold: Fold) -> int:
        if fold.count == 1:
            return 0
        return (fold.count - 1) * sum(self.size[fold.start : fold.start + fold.length])

    def _alike(self, start: int, length: int) -> Fold:
        """Return how often the stretch at `start` follows itself."""
        carried: dict[fx.Node, int] = {}
        count, keys = 1, self.keys
        while (at := start + count * length) < len(keys) and keys[at] == keys[start]:
            if keys[at : at + length] != keys[start : start + length]:
                break
            pairs = [
                pair for i in range(at, at + length) for pair in zip(self.refs[i - length], self.refs[i], strict=True)
            ]
            if not all(self._wired(a, b, start, length, carried if count == 1 else None) for a, b in pairs):
                break
            count += 1
        return Fold(start, length, count, carried if count > 1 else {})

    def _wired(self, a: fx.Node, b: fx.Node, start: int, length: int, carried: dict[fx.Node, int] | None) -> bool:
        """Return whether the second of two stretches reads `b` as the first reads `a`."""
        before, now = self.place.get(a, -1), self.place.get(b, -1)
        if before < start and a is b:
            return carried is None or a not in carried
        if before >= start:
            return now == before + length
        if carried is None or now < start or carried.get(a, now - start) != now - start:
            return False
        carried[a] = now - start
        return True


def _key(gm: fx.GraphModule, item: Item, headers: Mapping[str, str]) -> tuple[str, list[fx.Node], int]:
    """Return what an item has in common with those alike, the values that it reads, and its number of lines."""
    refs: list[fx.Node] = []

    def seen(node: fx.Node) -> str:
        refs.append(node)
        return "%"

    speller = Speller(dict.fromkeys(item.nodes, ""), path=without_numbers, ref=seen)
    lines = speller.lines(item)
    kinds = [type(gm.get_submodule(str(n.target))).__name__ for n in item.nodes if n.op == "call_module"]
    header = re.sub(r"< [\d.e+-]+|[\d.]+ %", "#", headers.get(item.site, ""))
    notes = [n.meta[NOTE].part for n in item.nodes if NOTE in n.meta]
    return repr((lines, kinds, header, notes, without_numbers(item.site))), refs, len(lines) + 2 * bool(item.site)


def without_numbers(path: str) -> str:
    """Return a path with `#` for each number in it."""
    return re.sub(r"\d+", "#", path)
