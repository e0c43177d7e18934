"""Memory: what a stage has freed should not count in the next stage's peak, and weights are copied once, at the end."""

from __future__ import annotations

import ctypes
import gc
import types
from collections.abc import Callable, Iterator
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor, nn

Made = TypeVar("Made")
# Nothing of what was made from a model is reached through these alone.
_CLOSED = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.CodeType, types.FrameType)


def shareable(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are nothing but memory: no tensors of other classes, none made in inference mode."""
    return [p for p in model.parameters() if type(p) is nn.Parameter and not p.is_inference()]


@torch.no_grad()
def unshare(made: Made, model: nn.Module) -> Made:
    """Give what was made from a model memory of its own: from then on neither sees changes to the other's weights.

    Every tensor that `made` reaches by its attributes and that lies in the memory of one of `model`'s parameters is moved, in
    place; those that shared memory still do.

    Args:
        made: of graph modules that were captured in the model's memory.
        model: whose parameters stay where they are.

    Returns:
        `made`.
    """
    return_free_memory()  # before the copies
    kept = {id(t) for t in model.parameters()}
    shared = {p.untyped_storage().data_ptr() for p in shareable(model) if p.numel() > 0}
    moved: dict[int, torch.UntypedStorage] = {}
    for tensor in _tensors(made, {id(model), *kept}):
        if type(tensor) not in (Tensor, nn.Parameter) or tensor.layout != torch.strided:
            continue
        storage = tensor.untyped_storage()
        if (place := storage.data_ptr()) in shared:
            moved.setdefault(place, storage.clone())
            tensor.set_(moved[place], tensor.storage_offset(), tensor.size(), tensor.stride())
    return made


def _tensors(root: object, seen: set[int]) -> Iterator[Tensor]:
    """Yield the tensors that an object reaches, but for what is in `seen`, by id."""
    stack, alive = [root], []
    while stack:
        found = stack.pop()
        if id(found) in seen or isinstance(found, _CLOSED):
            continue
        seen.add(id(found))
        alive.append(found)  # an id is good for as long as its object lives
        if isinstance(found, Tensor):
            yield found
        stack.extend(gc.get_referents(found))


def collect_garbage() -> None:
    """Collect cycles (graph modules have many), and `return_free_memory`.

    It takes 0.3 s where the libraries of a real model are loaded.
    """
    gc.collect()
    return_free_memory()


def keep_loaded() -> None:
    """Take what is loaded by now, which stays, out of the collector's sight, for programs that transform several times.

    Among the objects of all of torch a collection takes 0.2 to 0.5 s, and each `transform` collects several times.
    """
    gc.collect()
    gc.freeze()


def return_free_memory() -> None:
    """Return freed pages to the system, where its C library can (glibc's malloc_trim).

    Tensors of some megabytes are cut from the heap, and a freed one stays there: a tuned model's process would keep hundreds of
    megabytes that nothing uses.
    """
    if (found := _malloc_trim()) is not None:
        found(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    """Return glibc's function; None on other systems."""
    try:
        found: Callable[[int], int] = ctypes.CDLL("libc.so.6").malloc_trim
    except (OSError, AttributeError):
        return None
    return found
