"""The ways that a module goes before it runs elsewhere: scripted, frozen, saved and loaded, pickled, copied."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

Trip = Callable[[nn.Module], Any]


def reloaded(scripted: Any) -> Any:
    """Save a script, and load it again."""
    buffer = io.BytesIO()
    torch.jit.save(scripted, buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)


def saved_bytes(scripted: Any) -> int:
    """Return the size of a script's file."""
    buffer = io.BytesIO()
    torch.jit.save(scripted, buffer)
    return buffer.tell()


def unpickled(module: Any) -> Any:
    """Write a module by `torch.save`, and read it again."""
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def frozen(scripted: Any) -> Any:
    return torch.jit.freeze(scripted.eval())


ROUND_TRIPS: dict[str, Trip] = {
    "scripted": torch.jit.script,
    "loaded": lambda m: reloaded(torch.jit.script(m)),
    "loaded twice": lambda m: reloaded(reloaded(torch.jit.script(m))),
    "script copied": lambda m: copy.deepcopy(torch.jit.script(m)),
    "frozen": lambda m: frozen(torch.jit.script(m)),
    "loaded, then frozen": lambda m: frozen(reloaded(torch.jit.script(m))),
    "copied": copy.copy,
    "deep copied": copy.deepcopy,
    "pickled": lambda m: pickle.loads(pickle.dumps(m)),
    "torch.save": unpickled,
    "pickled, then scripted": lambda m: torch.jit.script(pickle.loads(pickle.dumps(m))),
}
# Weights that are laid out for oneDNN are constants of a frozen module, which nothing can save.
SAVED_FROZEN: dict[str, Trip] = {
    "frozen, then loaded": lambda m: reloaded(frozen(torch.jit.script(m))),
    "frozen, loaded, frozen": lambda m: frozen(reloaded(frozen(torch.jit.script(m)))),
}
round_trips = pytest.mark.parametrize("trip", ROUND_TRIPS.values(), ids=ROUND_TRIPS)


def assert_same(got: Any, wanted: nn.Module, *calls: Any, **tolerance: float) -> None:
    """Compare outputs, bit for bit unless a tolerance is given; three times, since TorchScript optimises on the second call.

    Args:
        got: what came out of a round trip.
        wanted: what went in.
        calls: arguments of calls, a tuple each.
        tolerance: of `torch.testing.assert_close`.
    """
    for arguments in calls:
        output = wanted(*arguments)
        for _ in range(3):
            torch.testing.assert_close(
                got(*arguments), output, **{"rtol": 0.0, "atol": 0.0, **tolerance}, equal_nan=True
            )
