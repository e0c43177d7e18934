"""The scripted form: what runs without the project."""

from __future__ import annotations

import copy
import io
from typing import Any

import torch
from torch import nn

import dendrofx
from tests.property.calls import Call
from tests.property.compare import tensor_apart, tensors
from tests.property.draft import Draft


def scripted_apart(routed: nn.Module, d: Draft, call: Call, wanted: Any) -> str | None:
    """What differs once a module is scripted, saved and loaded, in words, as `apart` has them.

    It takes the graph's tensors by name and returns tensors in the order of the original's. None where it takes names that the
    call does not have, such as those of tensors inside a container.

    Raises:
        Exception: whatever scripting, saving, loading or the call raises.
    """
    buffer = io.BytesIO()
    torch.jit.save(dendrofx.script(routed), buffer)
    loaded = torch.jit.load(io.BytesIO(buffer.getvalue()))
    named = _by_name(d, call)
    takes = {a.name: a.has_default_value() for a in loaded.forward.schema.arguments[1:]}
    if not all(name in named or optional for name, optional in takes.items()):
        return None
    torch.manual_seed(0)
    got = loaded(**copy.deepcopy({k: v for k, v in named.items() if k in takes}))
    a, b = list(tensors(wanted).values()), list(tensors(got).values())
    if len(a) != len(b):
        return f"{len(b)} tensors, the original's {len(a)}"
    return next(filter(None, map(tensor_apart, a, b)), "")


def _by_name(d: Draft, call: Call) -> dict[str, Any]:
    """A call's arguments by name, as far as they have one."""
    places = [a.name for place in ("required", "optional") for a in d.arguments if a.place == place]
    return {**dict(zip(places, call.args, strict=False)), **call.kwargs}
