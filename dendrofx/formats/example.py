"""The example that a program is traced with: its sizes are no more than hints, but 0 and 1 are special to `torch.export`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from dendrofx.errors import InputError
from dendrofx.formats.taken import taken
from dendrofx.graph.inputs import Input, inputs_of
from dendrofx.values.inputs import show
from dendrofx.values.meta import SEEN

MANY = 3  # least size of an axis that varies in an example: `torch.export` takes 0 and 1 for special
GIVE_EXAMPLE = "pass example=, tensors by name that the model takes"


def made_up(gm: fx.GraphModule) -> dict[str, Tensor]:
    """Return tensors of ones that a graph takes, by name: of the sizes of the example that it was transformed with.

    Raises:
        InputError: an input of unknown shape or type.
    """
    found = {}
    for node, one in zip((n for n in gm.graph.nodes if n.op == "placeholder"), inputs_of(gm), strict=True):
        if one.axes is None or one.dtype is None or SEEN not in node.meta:
            raise InputError(f"the shape of '{one.name}' is not known here: {GIVE_EXAMPLE}")
        shape = [
            MANY if size < MANY and isinstance(axis, str) else size
            for axis, size in zip(one.axes, node.meta[SEEN], strict=True)
        ]
        found[one.name] = torch.ones(shape, dtype=getattr(torch, one.dtype))
    return found


def from_caller(gm: fx.GraphModule, example: Any) -> dict[str, Tensor]:  # noqa: ANN401
    """Return a caller's example in the order of a graph's inputs, repeated along axes that vary and are shorter than `MANY`.

    Raises:
        InputError: no dict of tensors by name, or not of the names, types and axes that the graph takes.
    """
    inputs = inputs_of(gm)
    if not isinstance(example, Mapping):
        names = ", ".join(f"{one.name!r}: ..." for one in inputs)
        raise InputError(f"example is a dict of tensors by name, got {show(example)}: pass {{{names}}}")
    found = taken(inputs, example, "the module")
    return {one.name: _many(one, found[one.name], _lengths(inputs, found)) for one in inputs}


def varying(one: Input, tensor: Tensor) -> list[int]:
    """Return the axes of an input that vary: those with a letter; of an input without known shape its first."""
    if one.axes is None:
        return [0] if tensor.dim() else []
    return [axis for axis, size in enumerate(one.axes) if isinstance(size, str)]


def _lengths(inputs: Sequence[Input], given: Mapping[str, Tensor]) -> dict[str, set[int]]:
    """Return the sizes that each letter stands for in an example."""
    found: dict[str, set[int]] = {}
    for one in inputs:
        for axis, letter in enumerate(one.axes or ()):
            if isinstance(letter, str):
                found.setdefault(letter, set()).add(given[one.name].size(axis))
    return found


def _many(one: Input, x: Tensor, lengths: Mapping[str, set[int]]) -> Tensor:
    """Return a tensor whose axes that vary have `MANY` and more, where all of the same letter are alike in that."""
    for axis, letter in enumerate(one.axes or ()):
        if isinstance(letter, str) and len(lengths[letter]) == 1 and x.size(axis) < MANY:
            if x.size(axis) == 0:
                raise InputError(f"example has none along axis {axis} of '{one.name}': pass one at least")
            x = x.repeat_interleave(MANY, axis)
    return x
