"""A graph's nodes as lines: `name = call(arguments)`, and a routed site as the condition that it is.

    score = fc1..fc2.gate(stem)                f32[N]
    if score < tolerance:  # each row
      fc2 = fc1..fc2.light(stem)
    else:
      fc2 = fc1..fc2.full(stem)                f32[N, 256]

What a site does row by row is in `runtime/routing.py`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import fx

from dendrofx.graph.activations import is_in_place
from dendrofx.runtime.attention import plan_attention
from dendrofx.runtime.repeats import all_rows, match_runs
from dendrofx.runtime.split_linear import split_linear
from dendrofx.values.meta import CARRIED, NOTE, SHAPE, SIZE, Note

SITE = {"rows", "light", "gate", "tolerance", "split", "full", "routed"}  # parts of a routed site
CASCADE = {"light", "decision", "gate", "tolerance", "split", "full"}
_MOVED = (match_runs, all_rows)  # ways from distinct rows to others: `user_to_rows` says what they are
OUTPUTS = "cascade"  # what a cascade's outputs are called


@dataclass(frozen=True)
class Line:
    """One line: `left = right`, or `right` alone, and the shape of its value; `branch` where it is of a routed site."""

    right: str
    left: str = ""
    shape: str = ""
    indent: int = 0
    branch: bool = False


@dataclass(frozen=True)
class Item:
    """What stands together: one call, or a routed site.

    Attributes:
        nodes: of the graph.
        site: it belongs to, empty elsewhere.
        node: whose value it gives.
    """

    nodes: tuple[fx.Node, ...]
    site: str = ""

    @property
    def node(self) -> fx.Node:
        """The node whose value it gives."""
        return self.nodes[-1]

    @property
    def parts(self) -> dict[str, fx.Node]:
        """The nodes of a routed site by what they are to it."""
        return {n.meta[NOTE].part: n for n in self.nodes if NOTE in n.meta}


def items(graph: fx.Graph) -> Iterator[Item]:
    """Give what a graph computes, in order; parameters, inputs and sizes of the input are named where they are used."""
    group: list[fx.Node] = []
    for node in _in_order(graph):
        note = node.meta.get(NOTE)
        if group and (not isinstance(note, Note) or note.site != group[0].meta[NOTE].site):
            yield from _grouped(group)
            group = []
        if isinstance(note, Note):
            group.append(node)
        elif _shown(node):
            yield Item((node,))


def _in_order(graph: fx.Graph) -> list[fx.Node]:
    """Return the nodes, what is planned once for all layers before the first of them, with what it is made of."""
    nodes = list(graph.nodes)
    made = _made_of([n for n in nodes if n.target is plan_attention])
    stay = [i for i, n in enumerate(nodes) if n in made and (is_in_place(n) or not n.all_input_nodes)]
    layers = [i for i, n in enumerate(nodes) if n not in made and (n.op == "call_module" or _reads_parameter(n))]
    if not layers:
        return nodes
    late = [n for n in nodes[max([layers[0], *stay]) :] if n in made]
    if not late:
        return nodes
    place = max(nodes.index(i) for n in late for i in n.all_input_nodes if i not in late) + 1
    return [*nodes[:place], *late, *(n for n in nodes[place:] if n not in late)]


def _reads_parameter(node: fx.Node) -> bool:
    return any(n.op == "get_attr" for n in node.all_input_nodes)


def _made_of(nodes: Sequence[fx.Node]) -> set[fx.Node]:
    """Return nodes, and all that they depend on."""
    found: set[fx.Node] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += node.all_input_nodes
    return found


def _told(node: fx.Node) -> tuple[Any, ...]:
    """Return the arguments of a call; of a split Linear its parts, how they are expanded, and its parameters."""
    if node.target is not split_linear:
        return node.args
    parts, _, moved, _, weights, bias, _ = cast(tuple[Any, ...], node.args)
    return parts, moved, weights[0], bias


def _grouped(group: list[fx.Node]) -> Iterator[Item]:
    """Give a routed site as one, and one that is not yet routed node by node."""
    site, parts = group[0].meta[NOTE].site, {n.meta[NOTE].part for n in group}
    if parts >= SITE or parts >= CASCADE:
        yield Item(tuple(group), site)
    else:
        yield from (Item((n,), site) for n in group if _shown(n))


def _shown(node: fx.Node) -> bool:
    return node.op not in ("placeholder", "output", "get_attr") and SIZE not in node.meta and node.target not in _MOVED


@dataclass
class Speller:
    """Writes items, with what things are called.

    Attributes:
        names: of nodes that are not called by their own name.
        path: how the path of a module or parameter is written.
        ref: how a node is written where it is used; by default its name.
    """

    names: Mapping[fx.Node, str] = field(default_factory=dict)
    path: Callable[[str], str] = str
    ref: Callable[[fx.Node], str] | None = None

    def lines(self, item: Item) -> list[Line]:
        """Return an item's lines."""
        parts = item.parts
        if len(item.nodes) > 1 and parts.keys() >= SITE:
            return self._site(item, parts)
        if len(item.nodes) > 1:
            return self._cascade(item, parts)
        return [Line(self.call(item.node), self.name(item.node), item.node.meta.get(SHAPE, ""))]

    def name(self, node: fx.Node) -> str:
        """Return what a node is called."""
        return self.names.get(node, node.name)

    def value(self, value: Any, owner: str = "") -> str:  # noqa: ANN401  (whatever FX allows as an argument)
        """Write an argument; a parameter of the same owner as the one before by its last name."""
        if isinstance(value, fx.Node):
            if value.op == "get_attr":
                path = self.path(str(value.target))
                return f".{path.rpartition('.')[2]}" if owner and path.rpartition(".")[0] == owner else path
            if SIZE in value.meta:
                return str(value.meta[SIZE])
            return self.name(value) if self.ref is None else self.ref(value)
        if isinstance(value, slice):
            return ":".join("" if v is None else self.value(v) for v in (value.start, value.stop))
        if isinstance(value, list | tuple):
            inside = ", ".join(self.value(v) for v in value)
            return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' if len(value) == 1 else ''})"
        if isinstance(value, dict):
            return f"{{{', '.join(f'{k!r}: {self.value(v)}' for k, v in value.items())}}}"
        return f"'{value}'" if isinstance(value, torch.device) else repr(value)

    def call(self, node: fx.Node) -> str:
        """Write a node's call."""
        if node.op == "get_attr":
            return self.path(str(node.target))
        if node.target is operator.getitem:
            index = node.args[1]
            inside = ", ".join(map(self.value, index)) if isinstance(index, tuple) and index else self.value(index)
            return f"{self.value(node.args[0])}[{inside}]"
        arguments = self._arguments(node)
        if node.op == "call_method":
            return f"{arguments[0]}.{node.target}({', '.join(arguments[1:])})"
        called = self.path(str(node.target)) if node.op == "call_module" else getattr(node.target, "__name__", "")
        return f"{called or node.target}({', '.join(arguments)})"

    def _arguments(self, node: fx.Node) -> list[str]:
        found, owner = [], ""
        for a in _told(node):
            found.append(self.value(a, owner))
            is_parameter = isinstance(a, fx.Node) and a.op == "get_attr"
            owner = self.path(str(a.target)).rpartition(".")[0] if is_parameter else ""
        kwargs = {k: v for k, v in node.kwargs.items() if (k, v) != ("inplace", False) and k != "device"}
        return found + [f"{k}={self.value(v)}" for k, v in kwargs.items()]

    def _site(self, item: Item, parts: Mapping[str, fx.Node]) -> list[Line]:
        site, given = self.path(item.site), self.value(parts["rows"].args[0])
        reads = parts["light"] in parts["gate"].all_input_nodes
        light = f"{site}.light({given})"
        lines = [Line(light, "light", branch=True)] if reads else []
        score = f"{site}.gate({given}{', light' if reads else ''})"
        lines.append(Line(score, "score", parts["gate"].meta.get(SHAPE, ""), branch=True))
        full = f"{site}.full({given})"
        return [*lines, *self._branches(item.node, "row", "light" if reads else light, full, self.name(item.node))]

    def _cascade(self, item: Item, parts: Mapping[str, fx.Node]) -> list[Line]:
        site, inputs = item.site, parts["light"].args[0]
        given = ", ".join(map(self.value, inputs if isinstance(inputs, Sequence) else [inputs]))
        decision = f"light[{parts['decision'].args[1]}]"
        lines = [Line(f"{site}.light({given})", "light", branch=True)]
        lines.append(Line(f"{site}.gate({decision})", "score", parts["gate"].meta.get(SHAPE, ""), branch=True))
        if "score" in parts:
            lines.append(Line(f"doubt_not_finite(score, {self.value(parts['score'].args[1])})", "score", branch=True))
        given += ", light[-1]" if item.node.meta.get(CARRIED) else ""  # the value at the cut
        return [*lines, *self._branches(item.node, "sample", "light", f"{site}.full({given})", OUTPUTS)]

    def _branches(self, node: fx.Node, each: str, light: str, full: str, name: str) -> list[Line]:
        easy, hard = Line(light, name, "", 2, True), Line(full, name, node.meta.get(SHAPE, ""), 2, True)
        return [Line(f"if score < tolerance:  # each {each}"), easy, Line("else:"), hard]
