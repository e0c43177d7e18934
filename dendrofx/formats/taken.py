"""Tensors as a program takes them: a program does not look at their types and axes, or refuses them without their name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dendrofx.errors import InputError
from dendrofx.graph.inputs import Input
from dendrofx.values.inputs import show


def taken(inputs: Sequence[Input], given: Mapping[str, Any], what: str) -> dict[str, Tensor]:
    """Return tensors by name, in the order of a program's inputs.

    None is converted: types decide what a model computes, such as where sums of bytes wrap and what `~` makes of a mask.

    Args:
        inputs: of the program.
        given: by name.
        what: takes them, for messages: "this file".

    Raises:
        InputError: another name, type, rank or layout; the message has the input and what it takes.

    Example:
        >>> taken(loaded.inputs, {"ids": torch.ones(2, 5, dtype=torch.int64)}, "this file")
    """
    names = [one.name for one in inputs]
    if set(names) != set(given):
        raise InputError(f"{what} takes {', '.join(map(str, inputs))}; got {', '.join(given) or 'nothing'}")
    return {one.name: _taken(one, given[one.name], what) for one in inputs}


def _taken(one: Input, x: Any, what: str) -> Tensor:  # noqa: ANN401
    said = f"'{one.name}' is {show(x)}; {what} takes {one}"
    if not isinstance(x, Tensor):
        raise InputError(said)
    if x.layout != torch.strided or x.is_nested or x.device.type != "cpu":
        raise InputError(f"'{one.name}' is a {x.layout} tensor on {x.device}; {what} takes dense ones in main memory")
    if one.axes is not None and x.dim() != len(one.axes):
        raise InputError(said)
    if one.dtype is not None and x.dtype != getattr(torch, one.dtype):
        raise InputError(f"{said}: convert it with .to(torch.{one.dtype})")
    return x
