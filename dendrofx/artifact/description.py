"""What a saved file says about itself beside its plan and certificate: its inputs and call, and the versions that wrote it."""

from __future__ import annotations

import platform
from dataclasses import asdict
from typing import Any

import torch
from torch import fx, nn

from dendrofx.artifact.call_json import NotJson, class_name, encode_form
from dendrofx.graph.inputs import inputs_of
from dendrofx.graph.show import graph_text
from dendrofx.values.drop_in import call_form
from dendrofx.version import VERSION

FORMAT = 1


def described(module: nn.Module, counted: bool = False) -> dict[str, Any]:
    """Return the inputs of a module, how it is called, and its graph as text, as plain JSON values.

    The call is None for a module that was not captured from a model, and for a call that JSON cannot hold: then the file is called
    with its tensors by name, and returns them as the graph does.
    """
    inputs = inputs_of(module) if isinstance(module, fx.GraphModule) else ()
    form, call, why = call_form(module), None, ""
    if form is not None:
        try:
            call = encode_form(form)
        except NotJson as error:
            why = f"JSON cannot hold how {form.model} was called: {error}"
    return {
        "counted": counted,
        "model": type(module).__name__ if form is None else form.model,
        "inputs": [asdict(i) for i in inputs],
        "call": call,
        "not_held": why,
        "graph": graph_text(module) if isinstance(module, fx.GraphModule) else "",
        "output": None if form is None else class_name(form.output),
    }


def versions(seal: str) -> dict[str, Any]:
    """Return what wrote a file, and its seal, as plain JSON values."""
    python = platform.python_version()
    return {"format": FORMAT, "dendrofx": VERSION, "torch": str(torch.__version__), "python": python, "seal": seal}
