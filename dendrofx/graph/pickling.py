"""Pickling graph modules node by node.

torch pickles the generated code of a graph module and traces it again, which gives nodes other names and another order, joins
reads of one parameter, drops notes, and runs into functions that should stay calls. Sites are known by their nodes' names.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import fx, nn


@dataclass(frozen=True)
class _Place:
    """A node, by its place in the graph."""

    index: int


@dataclass(frozen=True)
class _Operator:
    """An operator of `torch.ops`, which cannot be pickled itself."""

    name: str

    def find(self) -> Any:  # noqa: ANN401
        found: Any = torch.ops
        for part in self.name.split("."):
            found = getattr(found, part)
        return found


@dataclass(frozen=True)
class PackedModule:
    """A graph module without its graph's objects.

    Attributes:
        state: attributes, submodules and tensors.
        nodes: (op, name, target, args, kwargs, type, dendrofx's notes) in graph order.
        meta: of the module, its records packed.
    """

    state: dict[str, Any]
    nodes: tuple[tuple[Any, ...], ...]
    meta: dict[str, Any]

    @staticmethod
    def of(gm: fx.GraphModule, without: str = "") -> PackedModule:
        """Pack it, but for what its meta has under `without`; tensors are shared with it."""
        places: dict[fx.Node, Any] = {node: _Place(i) for i, node in enumerate(gm.graph.nodes)}

        def place(node: fx.Node) -> Any:  # noqa: ANN401  (no argument of a node, but of what is pickled)
            return places[node]

        def packed(node: fx.Node) -> tuple[Any, ...]:
            args, named = (fx.node.map_arg(part, place) for part in (node.args, node.kwargs))
            notes = {k: v for k, v in node.meta.items() if k.startswith("dendrofx")}
            return node.op, node.name, _target(node.target), args, named, node.type, notes

        state = {k: v for k, v in gm.__dict__.items() if k not in ("_graph", "meta")}
        meta = {k: _pack_fields(v) for k, v in gm.meta.items() if k != without}
        return PackedModule(state, tuple(packed(node) for node in gm.graph.nodes), meta)

    def unpack(self, kind: type[fx.GraphModule]) -> fx.GraphModule:
        """Return the module again, as a `kind`."""
        graph = fx.Graph()
        made: list[fx.Node] = []
        for op, name, target, args, named, typed, notes in self.nodes:
            args, named = fx.node.map_aggregate((args, named), lambda v: made[v.index] if isinstance(v, _Place) else v)
            target = target.find() if isinstance(target, _Operator) else target
            made.append(graph.create_node(op, target, args, named, name, typed))
            made[-1].meta.update(notes)
        root = nn.Module()
        root.__dict__.update(self.state)
        module = kind(root, graph)
        module.meta.update({k: _unpack_fields(v) for k, v in self.meta.items()})
        return module.eval()


def packed(value: Any) -> Any:  # noqa: ANN401
    """Return a plain graph module packed; anything else as it is."""
    return PackedModule.of(value) if _is_plain(value) else value


def unpacked(value: Any) -> Any:  # noqa: ANN401
    """Return what was packed."""
    return value.unpack(fx.GraphModule) if isinstance(value, PackedModule) else value


def _pack_fields(record: Any) -> Any:  # noqa: ANN401
    """Return a dataclass whose plain graph modules are packed; those with a reduction of their own look after themselves."""
    return _changed(record, packed)


def _unpack_fields(record: Any) -> Any:  # noqa: ANN401
    """Return the dataclass again."""
    return _changed(record, unpacked)


def _changed(record: Any, change: Any) -> Any:  # noqa: ANN401
    if not is_dataclass(record) or isinstance(record, type):
        return record
    return replace(record, **{f.name: change(getattr(record, f.name)) for f in fields(record)})


def _is_plain(value: object) -> bool:
    return isinstance(value, fx.GraphModule) and type(value).__reduce__ is fx.GraphModule.__reduce__


def _target(target: Any) -> Any:  # noqa: ANN401
    if isinstance(target, torch._ops.OpOverload | torch._ops.OpOverloadPacket):
        return _Operator(str(target))
    return target
