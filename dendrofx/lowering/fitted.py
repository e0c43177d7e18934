"""Weights that something was fitted to: a routed module's state can be loaded into that very module, and into no other.

Light branches, gates and laid-out weights are made from the weights as they are. Another model's weights would go into some tensors
of a routed module and leave the rest as it was: plain numbers in gates, and layouts, which are no part of a state dict. So other
weights are refused, by `check_state` where Python is ours. A script module that was saved and loaded is torch's alone: it carries
a buffer without values whose *shape* is the fingerprint of its weights, and torch refuses a state dict with another shape.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dendrofx.errors import InputError
from dendrofx.runtime.cascade import FullOnDoubtful
from dendrofx.runtime.leaves import FullOnHardRows, LightOnly

MARK = "fitted_to_these_weights"
TOLERANCE = ".tolerance"  # may be set
LOADED = "load the weights into the original model and transform that; tolerances are set by dendrofx.set_tolerances"


def is_fitted(module: nn.Module) -> bool:
    """Return whether a module holds what was fitted to its weights: routed sites, or laid-out weights."""
    return any(
        isinstance(m, FullOnHardRows | LightOnly | FullOnDoubtful) or hasattr(m, "packed") for m in module.modules()
    )


def mark(module: nn.Module) -> Tensor:
    """Return f32[0, a, b], whose shape is the fingerprint of a module's weights."""
    digest = hashlib.blake2b(digest_size=6)
    for name, value in sorted(module.state_dict().items()):
        if not name.endswith(TOLERANCE):
            plain = value.detach().contiguous().reshape(-1)
            digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
            digest.update(plain.view(torch.uint8).numpy().data if plain.numel() else b"")
    found = digest.digest()
    return torch.empty(0, *(int.from_bytes(found[i : i + 3], "little") for i in (0, 3)))


def check_state(module: nn.Module, given: Mapping[str, Any]) -> None:
    """Raise `InputError` where a state dict holds other weights than the module's own; tolerances may differ."""
    state = module.state_dict()
    if MARK in given:  # some weights of a script module are no part of its state dict
        state.setdefault(MARK, mark(module))
    for name, own in state.items():
        other = given.get(name, own)
        if name.endswith(TOLERANCE) or not isinstance(other, Tensor):
            continue
        if own.shape != other.shape or own.dtype != other.dtype or not torch.equal(own, other.to(own.device)):
            raise InputError(
                f"the state dict is another module's: '{name}' differs, and light branches, gates and laid-out weights were fitted"
                f" to the values here: {LOADED}"
            )


def guard(scripted: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """Have a script module's `load_state_dict` refuse other weights, as `check_state` does."""
    plain = scripted.load_state_dict

    def load_state_dict(state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:  # noqa: ANN401
        check_state(scripted, state_dict)
        return plain(state_dict, strict, assign)

    scripted.load_state_dict = load_state_dict  # type: ignore[method-assign]
    return scripted
