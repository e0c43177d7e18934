"""What a saved file says about itself beside its plan and certificate: its inputs and call, and the versions that wrote it."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from dendrofx.artifact.call_json import NotJson, class_name, encode_form
from dendrofx.graph.show import graph_text
from dendrofx.values.drop_in import call_form
from dendrofx.values.meta import SHAPE
from dendrofx.version import VERSION

FORMAT = 1
_DTYPES = {"f": "float", "i": "int", "u": "uint", "bf": "bfloat", "c": "complex"}


@dataclass(frozen=True)
class Input:
    """A tensor that a saved module takes.

    Attributes:
        name: of the keyword, in `torch.jit.load(path)(name=...)` too.
        dtype: "float32"; None where no example said it.
        axes: sizes of its axes, a letter for one that varies: `("N", 64)`; None where no example said them.

    Example:
        >>> print(Input("x", "float32", ("N", 64)))
        x: float32[N, 64]
    """

    name: str
    dtype: str | None = None
    axes: tuple[int | str, ...] | None = None

    def __str__(self) -> str:
        sizes = "" if self.axes is None else f"[{', '.join(map(str, self.axes))}]"
        return f"{self.name}: {self.dtype or 'tensor'}{sizes}"


def described(module: nn.Module) -> dict[str, Any]:
    """Return the inputs of a module, how it is called, and its graph as text, as plain JSON values.

    The call is None for a module that was not captured from a model, and for a call that JSON cannot hold: then the file is called
    with its tensors by name, and returns them as the graph does.
    """
    nodes = [n for n in module.graph.nodes if n.op == "placeholder"] if isinstance(module, fx.GraphModule) else []
    form, call, why = call_form(module), None, ""
    if form is not None:
        try:
            call = encode_form(form)
        except NotJson as error:
            why = f"JSON cannot hold how {form.model} was called: {error}"
    return {
        "model": type(module).__name__ if form is None else form.model,
        "inputs": [_input(n) for n in nodes],
        "call": call,
        "not_held": why,
        "graph": graph_text(module) if isinstance(module, fx.GraphModule) else "",
        "output": None if form is None else class_name(form.output),
    }


def versions(seal: str) -> dict[str, Any]:
    """Return what wrote a file, and its seal, as plain JSON values."""
    python = platform.python_version()
    return {"format": FORMAT, "dendrofx": VERSION, "torch": str(torch.__version__), "python": python, "seal": seal}


def _input(node: fx.Node) -> dict[str, Any]:
    """Return an input by the shape that its graph was annotated with, `f32[N, 64]`."""
    found = re.fullmatch(r"([a-z]+)(\d*)\[(.*)\]", str(node.meta.get(SHAPE, "")))
    if found is None:
        return {"name": str(node.target), "dtype": None, "axes": None}
    sort, bits, sizes = found.groups()
    axes = [int(s) if s.isdigit() else s for s in sizes.split(", ") if s]
    return {"name": str(node.target), "dtype": _DTYPES.get(sort, sort) + bits, "axes": axes}
