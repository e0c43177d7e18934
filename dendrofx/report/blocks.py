"""A graph as a short column of blocks: its sites, and what lies between them; blocks that repeat are folded."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import fx, nn

from dendrofx.graph.find_sites import find_sites
from dendrofx.values.meta import NOTE

LONGEST_PERIOD = 12
MOST_FUSED = 4  # Linears of one input
# What a routed site's nodes belong to; its other nodes only bring rows to its branches and back.
PARTS = {"gate": "gate", "score": "gate", "split": "gate", "full": "full"}
# What moves no number, or only moves numbers about.
_SILENT = {
    "getitem", "size", "view", "reshape", "permute", "transpose", "contiguous", "flatten", "unsqueeze", "squeeze", "expand",
    "slice", "to", "_to_copy", "clone", "detach", "getattr", "dropout", "sym_size", "select", "alias", "t",
    "_assert_tensor_metadata", "plan_attention",
}  # fmt: skip


@dataclass(frozen=True)
class Block:
    """A few nodes that are drawn as one.

    Attributes:
        label: what it is; site: of a site its name.
        routed: whether its rows are split.
        ms: what its nodes take; parts: of a routed one, by "gate", "light" and "full".
        hard: share of its rows that goes full, where they are split.
    """

    label: str
    site: str = ""
    routed: bool = False
    ms: float = 0.0
    parts: Mapping[str, float] = field(default_factory=dict)
    hard: float = 0.0

    @property
    def kind(self) -> tuple[str, bool]:
        """What blocks that are alike have in common."""
        return re.sub(r"\d+", "#", self.site) or self.label, self.routed


@dataclass(frozen=True)
class Fold:
    """Blocks in order, and how often they follow one another; figures are means over the repeats."""

    blocks: tuple[Block, ...]
    times: int = 1


def blocks(gm: fx.GraphModule, ms: Mapping[str, float], hard: Mapping[str, float]) -> list[Block]:
    """Return a graph's blocks in order.

    Args:
        gm: the graph.
        ms: of its nodes by name.
        hard: by routed site, the share of its rows that goes full.
    """
    sites = {node: site for site in find_sites(gm) for node in site.nodes}
    found: list[Block] = []
    between: list[fx.Node] = []
    for node in gm.graph.nodes:
        if node.op in ("placeholder", "output") or (node.op == "get_attr" and NOTE not in node.meta):
            continue
        note, site = node.meta.get(NOTE), sites.get(node.name)
        if note is None and site is None:
            between.append(node)
            continue
        found += _stretch(gm, between, ms)
        between = []
        name = note.site if note is not None else site.name  # type: ignore[union-attr]
        shape = "" if site is None else site.shape
        if not found or found[-1].site != name:
            found.append(Block(shape or name, name, routed=note is not None, hard=hard.get(name, 0.0)))
        found[-1] = _with(found[-1], ms.get(node.name, 0.0), "" if note is None else PARTS.get(note.part, "light"))
    return found + _stretch(gm, between, ms)


def _with(block: Block, ms: float, part: str) -> Block:
    parts = {**block.parts, part: block.parts.get(part, 0.0) + ms} if part else block.parts
    return replace(block, ms=block.ms + ms, parts=parts)


def _stretch(gm: fx.GraphModule, nodes: Sequence[fx.Node], ms: Mapping[str, float]) -> list[Block]:
    """Return the nodes between two sites as a block; none where they compute nothing."""
    names = Counter(n for n in (_name(gm, node) for node in nodes) if n not in _SILENT)
    if not names:
        return []
    label = ", ".join(f"{count} {name}" if count > 1 else name for name, count in names.items())
    return [Block(label, ms=sum(ms.get(n.name, 0.0) for n in nodes))]


def _name(gm: fx.GraphModule, node: fx.Node) -> str:
    """Return a node's operation in a word."""
    if node.op == "call_module":
        module: nn.Module = gm.get_submodule(str(node.target))
        return type(module).__name__
    name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", str(node.target))
    return name.split(".")[0] or name


def fold(found: Sequence[Block]) -> list[Fold]:
    """Return blocks with those folded that follow one another again and again."""
    folds: list[Fold] = []
    kinds = [b.kind for b in found]
    place = 0
    while place < len(found):
        period, times = _repeat(kinds, place)
        parts = [found[place + i :: period][:times] for i in range(period)]
        folds.append(Fold(tuple(_mean(p) for p in parts), times))
        place += period * times
    return folds


def _repeat(kinds: Sequence[object], start: int) -> tuple[int, int]:
    """Return the period and the number of repeats that cover most from a place; a period that is short is better."""
    best = (1, 1)
    for period in range(1, min(LONGEST_PERIOD, len(kinds) - start) + 1):
        times = 1
        while kinds[start : start + period] == kinds[start + times * period : start + (times + 1) * period]:
            times += 1
        if times > 1 and period * times > best[0] * best[1]:
            best = (period, times)
    return best


def _mean(alike: Sequence[Block]) -> Block:
    count = len(alike)
    parts = {part: sum(b.parts.get(part, 0.0) for b in alike) / count for part in alike[0].parts}
    hard = sum(b.hard for b in alike) / count
    first = alike[0]
    site = first.site if first.site == alike[-1].site else pattern(b.site for b in alike)
    return replace(first, site=site, ms=sum(b.ms for b in alike) / count, parts=parts, hard=hard)


def pattern(names: Iterable[str]) -> str:
    """Return names that differ in their numbers as one: `*` stands for a number that is not the same in all."""
    parts = zip(*(re.split(r"(\d+)", name) for name in names), strict=True)
    return "".join(found.pop() if len(found := set(part)) == 1 else "*" for part in parts)


def block_times(found: Sequence[Block]) -> dict[str, float]:
    """Return the milliseconds of sites by name, and of those that one fused Linear may stand for: `q`, `k`, `v` as `q_k_v`."""
    sites = [b for b in found if b.site]
    ms = {b.site: b.ms for b in sites}
    for start, first in enumerate(sites):
        home, _, name = first.site.rpartition(".")
        spent = first.ms
        for block in sites[start + 1 : start + MOST_FUSED]:
            other, _, part = block.site.rpartition(".")
            if other != home:
                break
            name, spent = f"{name}_{part}", spent + block.ms
            ms.setdefault(f"{home}.{name}" if home else name, spent)
    return ms
