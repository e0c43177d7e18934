"""Inputs like an example, for running a graph against its model: what the example had by chance must not be in the graph.

A graph may have burnt in a size, a batch of one, a mask without padding, or a value. So it is run on a single sample, on three
samples, on fewer tokens, on smaller pictures, beyond the sizes that it is known to be made for, and, for integer inputs of
zeros and ones (masks), on all ones, all zeros, and a ragged end of either at either side. For graphs that may have fixed
values, on other values too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from dendrofx.inputs import Inputs

# Samples of the example that its variants have.
FEW = 4


def variants(
    example: Inputs, values: bool = False, limits: Iterable[tuple[int, int, int]] = ()
) -> Iterator[tuple[str, Inputs]]:
    """The example and its variants, each with what was changed.

    Args:
        example: one call's inputs.
        values: with other values too: a graph may have fixed some.
        limits: axis, size in the example and largest size that a graph was made for; one more is tried.

    Example:
        >>> [what for what, _ in variants(Inputs.of(torch.zeros(8, 64)))]
        ['', ' with one sample', ' with three samples', ' with fewer tokens', ' with one token less']
    """
    yield "", example
    whole = example
    if (samples := _shared(example, 0)) is not None:
        if samples > FEW:  # nothing depends on how many there are, but time does
            samples, example = FEW, example.take(_positions(samples, FEW))
        if samples > 1:
            yield " with one sample", example.take(_positions(samples, 1))
        yield " with three samples", example.take(_positions(samples, 3))
    if (tokens := _shared(example, 1)) is not None:
        changes = {"fewer tokens": tokens - tokens // 3, "one token less": tokens - 1}
        for what, count in changes.items() if tokens > 3 else [("more tokens", 2 * tokens)]:
            yield f" with {what}", _resized(example, 1, tokens, count)
    if any(t.dim() == 4 for t in example.tensors):
        yield " with smaller pictures", example.map(_smaller)
    for what, change in _MASKS.items() if any(map(is_mask, example.tensors)) else ():
        yield f" with {what}", example.map(lambda t, change=change: change(t) if is_mask(t) else t)  # type: ignore[misc]
    for axis, size, most in limits:
        few = whole if axis == 0 or samples is None else example.take(_positions(samples, 1))
        yield f" with {most + 1} entries in axis {axis}", _resized(few, axis, size, most + 1)
    if values:
        yield from _other_values(example)


def _other_values(example: Inputs) -> Iterator[tuple[str, Inputs]]:
    yield " with zeros", example.map(torch.zeros_like)
    yield " with its numbers negated", example.map(lambda t: -t if t.is_floating_point() else t)
    yield " with its numbers a hundredfold", example.map(lambda t: 100 * t if t.is_floating_point() else t)
    yield " with its values in reverse", example.map(lambda t: t.reshape(-1).flip(0).reshape(t.shape))


def is_mask(t: Tensor) -> bool:
    """Whether a tensor looks like a mask of rows: [batch, tokens], no floats, zeros and ones."""
    return t.dim() == 2 and not t.is_floating_point() and bool(((t == 0) | (t == 1)).all())


def _shared(example: Inputs, axis: int) -> int | None:
    """The size that every tensor which has the axis has there; every tensor that carries samples has an axis of them."""
    tensors = example.carrying if axis == 0 else example.tensors
    sizes = {t.size(axis) if t.dim() > axis else 0 for t in tensors if axis == 0 or t.dim() > axis}
    size = sizes.pop() if len(sizes) == 1 else 0
    return size if size > 0 else None


def _positions(size: int, count: int) -> Tensor:
    """Positions to take from an axis of `size` to have `count`, i64[count]: the first, again and again."""
    return torch.arange(count) % size


def _resized(example: Inputs, axis: int, size: int, count: int) -> Inputs:
    """With `count` instead of `size` in one axis."""
    there = _positions(size, count)
    return example.map(lambda t: t.index_select(axis, there) if t.dim() > axis and t.size(axis) == size else t)


def _smaller(t: Tensor) -> Tensor:
    """A picture without its last rows and columns, at least half of it."""
    return t[:, :, : -(-t.size(2) // 2), : -(-t.size(3) // 2)] if t.dim() == 4 else t


def _ragged(mask: Tensor) -> Tensor:
    """Ones, ending earlier sample by sample; the first sample stays full."""
    length = mask.size(1)
    ends = length - torch.arange(mask.size(0)) % max(length - 1, 1)
    return (torch.arange(length) < ends[:, None]).to(mask.dtype)


# Padding is marked by zeros in some models, by ones in others.
_MASKS: dict[str, Callable[[Tensor], Tensor]] = {
    "every mask full": torch.ones_like,
    "every mask empty": torch.zeros_like,
    "ragged masks": _ragged,
    "masks ragged at the left": lambda mask: _ragged(mask).flip(1),
    "ragged masks inverted": lambda mask: 1 - _ragged(mask) if mask.dtype is not torch.bool else ~_ragged(mask),
}
