"""Values that are written in place, and all that share their memory.

A rewritten graph computes rows elsewhere, in other memory: what one node writes later into that of another, it would no longer
see. So neither a value that will still be written is row-wise, nor a node that reads it before.

    h = fc1(x); v = view(h); y = fc2(v); add_(h, 1); z = fc3(v)        h, v and add_ share memory: fc1, view and fc2 stay
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from dendrofx.graph.shapes import tensors

aten = torch.ops.aten
# They end in "_", and change no number.
_HARMLESS = (aten.detach_, aten.requires_grad_)
# May return their input itself, though their schemas do not say so.
_MAYBE_ITSELF = (aten.type_as, aten.dropout, aten.alpha_dropout, aten.feature_dropout)


def written_in_place(gm: fx.GraphModule) -> dict[fx.Node, fx.Node]:
    """Return every value whose memory some node writes in place, and the last node that does."""
    owner: dict[fx.Node, fx.Node] = {
        n: n for n in gm.graph.nodes
    }  # a node of the same memory, up to one that owns itself

    def memory(node: fx.Node) -> fx.Node:
        while owner[node] is not node:
            node = owner[node]
        return node

    for node in gm.graph.nodes:
        for source in filter(tensors, _shared(node)):
            owner[memory(node)] = memory(source)
    writers = {memory(n): n for n in gm.graph.nodes if _writes(n)}
    return {n: writers[memory(n)] for n in gm.graph.nodes if memory(n) in writers}


def _writes(node: fx.Node) -> bool:
    name = getattr(node.target, "__name__", "")
    writes = name.endswith("_") and not name.endswith("__") and node.target not in _HARMLESS
    return node.op == "call_function" and (writes or "out" in node.kwargs)


def _shared(node: fx.Node) -> list[fx.Node]:
    """Return the inputs whose memory a node's value may share."""
    if node.op != "call_function":
        return []
    if not isinstance(node.target, torch._ops.OpOverloadPacket):  # getitem, and what is not known
        return node.all_input_nodes
    sources = node.all_input_nodes[:1] if node.target in _MAYBE_ITSELF or _is_view(node.target) else []
    out = node.kwargs.get("out")
    return [*sources, out] if isinstance(out, fx.Node) else sources


def _is_view(packet: Any) -> bool:  # noqa: ANN401
    """Tell whether a schema of an op says that its result may be its first argument, or a view of it."""
    schemas = (getattr(packet, name)._schema for name in packet.overloads())
    first = (s.arguments[0] for s in schemas if s.arguments)
    return any(str(a.type) == "Tensor" and a.alias_info is not None for a in first)
