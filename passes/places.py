"""Where a site is in a graph under rewriting: its nodes by their notes, its modules under one name.

    %fc1_fc2_gate = routed.fc1_fc2.gate(%rows)        Note("fc1..fc2", "gate")

A pass finds what those before it made by the notes alone. The site's name, which may be no identifier, is in the notes; the one
inside the module is that of the folder that its outlined block is in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from dendrofx.errors import PassError
from dendrofx.values.meta import NOTE, Note


@dataclass(frozen=True)
class Place:
    """An outlined site.

    Attributes:
        gm: the module under rewriting.
        site: the site's name.
        prefix: of its modules, such as `routed.fc1_fc2`.
        nodes: by what they are to it, such as "outlined", "rows" or "light".
    """

    gm: fx.GraphModule
    site: str
    prefix: str
    nodes: dict[str, fx.Node]

    def module(self, part: str) -> nn.Module:
        """Return one of the site's modules."""
        return self.gm.get_submodule(f"{self.prefix}.{part}")

    def put(self, part: str, module: nn.Module) -> None:
        """Give the site a module, or another in its place."""
        self.gm.add_submodule(f"{self.prefix}.{part}", module)

    def add(self, part: str, op: str, target: Any, args: tuple[Any, ...] = ()) -> fx.Node:  # noqa: ANN401
        """Insert a node before the site's last, named and noted by what it is to the site."""
        with self.gm.graph.inserting_before(self.nodes["outlined"]):
            name = f"{self.prefix.rpartition('.')[2]}_{part}"
            node: fx.Node = self.gm.graph.create_node(op, target, args, name=name)
        node.meta[NOTE] = Note(self.site, part)
        return node

    def add_module(self, part: str, module: nn.Module, args: tuple[Any, ...]) -> fx.Node:
        """Give the site a module, and a node that calls it."""
        self.put(part, module)
        return self.add(part, "call_module", f"{self.prefix}.{part}", args)


def places(gm: fx.GraphModule, *parts: str) -> Iterator[Place]:
    """Yield the outlined sites that have nodes of all these parts, in graph order."""
    found: dict[str, dict[str, fx.Node]] = {}
    for node in gm.graph.nodes:
        if isinstance(note := node.meta.get(NOTE), Note):
            found.setdefault(note.site, {})[note.part] = node
    for site, nodes in found.items():
        if nodes.keys() >= {"outlined", *parts}:
            yield Place(gm, site, str(nodes["outlined"].target).rpartition(".")[0], nodes)


def noted(gm: fx.GraphModule, part: str) -> dict[str, list[fx.Node]]:
    """Return the nodes that carry a note with this part, by site, in graph order."""
    found: dict[str, list[fx.Node]] = {}
    for node in gm.graph.nodes:
        note = node.meta.get(NOTE)
        if isinstance(note, Note) and note.part == part:
            found.setdefault(note.site, []).append(node)
    return found


def require_free(gm: fx.GraphModule, container: str) -> None:
    """Raise `PassError` where a model has an attribute of the name under which a pass puts its modules."""
    if hasattr(gm, container):
        raise PassError(f"the model has an attribute '{container}', which dendrofx needs for its own modules")


def graph_name(site: str) -> str:
    """Return a site's name as a Python identifier: `blocks.0.fc1..fc2` -> `blocks_0_fc1_fc2`, `0..4` -> `site_0_4`."""
    words = [w for w in "".join(c if c.isalnum() else " " for c in site).split() if w]
    name = "_".join(words)
    return name if name[:1].isalpha() else f"site_{name}"


def unique_names(sites: Sequence[str]) -> dict[str, str]:
    """Return sites' names as identifiers, by site, none of them twice."""
    names: dict[str, str] = {}
    for site in sites:
        number, name = 1, graph_name(site)
        while name in names.values():
            number += 1
            name = f"{graph_name(site)}_{number}"
        names[site] = name
    return names
