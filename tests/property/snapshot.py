"""What the caller owns, recorded before and compared after: not a bit of it may change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

_PLAIN = (bool, int, float, str, type(None))


def snapshot(value: Any) -> dict[str, Any]:
    """Everything in a module, a tensor or a container, by path; tensors cloned.

    Example:
        >>> before = snapshot(model)
        >>> changes(before, snapshot(model))
        []
    """
    return dict(_walk(value, "", set()))


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The paths whose values differ, or that were added or removed."""
    return [k for k in {**before, **after} if k not in before or k not in after or not _equal(before[k], after[k])]


def _walk(value: Any, path: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, nn.Module):
        if id(value) in seen:
            return
        seen.add(id(value))
        yield f"{path}.class", type(value)
        for key, inner in list(value.__dict__.items()):
            yield from _walk(inner, f"{path}.{key}", seen)
    elif isinstance(value, Tensor):
        yield path, value.detach().clone()
        yield f"{path}.flags", (value.requires_grad, value.grad is None, isinstance(value, nn.Parameter))
    elif isinstance(value, dict):
        yield f"{path}.keys", list(value)
        for key, inner in value.items():
            yield from _walk(inner, f"{path}.{key}", seen)
    elif isinstance(value, list | tuple):
        yield f"{path}.len", len(value)
        for i, inner in enumerate(value):
            yield from _walk(inner, f"{path}.{i}", seen)
    else:
        yield path, value if isinstance(value, _PLAIN) else id(value)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return type(a) is type(b) and bool(a == b)
