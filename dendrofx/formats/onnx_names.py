"""Names of what an ONNX graph takes and returns, by which ONNX Runtime's callers know them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def places(structure: Any, name: str = "") -> list[str]:  # noqa: ANN401
    """Return the names of an output's tensors: the keys and positions that lead to each, "output" for one alone.

    Args:
        structure: see `STRUCTURE` in `artifact/exported.py`.
        name: of what holds it.
    """
    if structure is None:
        return [name or "output"]
    parts = structure.items() if isinstance(structure, Mapping) else enumerate(structure[1:])
    return [place for key, part in parts for place in places(part, f"{name}.{key}" if name else str(key))]


def name_values(graph: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:  # noqa: ANN401  (onnx has no types)
    """Give inputs and outputs their names, in order. ONNX has one name for a value: others that bear one give it up."""
    returned = [f"{name}_returned" if name in inputs else name for name in outputs]
    new = {value.name: name for value, name in zip(graph.output, returned, strict=True)}
    new.update({value.name: name for value, name in zip(graph.input, inputs, strict=True)})
    used = {name for node in graph.node for name in (*node.input, *node.output)} | {t.name for t in graph.initializer}
    for name in used.intersection(new.values()) - set(new):
        new[name] = f"{name}_inside"
    _rename(graph, new)


def _rename(graph: Any, new: Mapping[str, str]) -> None:  # noqa: ANN401
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = new.get(value.name, value.name)
    for node in graph.node:
        for values in (node.input, node.output):
            values[:] = [new.get(value, value) for value in values]
        for attribute in node.attribute:
            if attribute.HasField("g"):  # a branch reads values of the graph around it
                _rename(attribute.g, new)
