"""Inputs like an example, for running a graph against its model: what the example had by chance must not be in the graph.

A graph may have burnt in a size, a batch of one, a mask without padding, or a value. So it is run on a single sample, on three
samples, on fewer tokens, on smaller pictures, beyond the sizes that it is known to be made for, and, for integer inputs of
zeros and ones (masks), on every pattern of live and dead rows (`values/masks.py`). For graphs that may have fixed values, on other
values too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from dendrofx.values.inputs import Inputs
from dendrofx.values.masks import PATTERNS, RAGGED, written

# Samples of the example that its variants have.
FEW = 4


def variants(
    example: Inputs, values: bool = False, limits: Iterable[tuple[int, int, int]] = ()
) -> Iterator[tuple[str, Inputs]]:
    """Give the example and its variants, each with what was changed.

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
            if any(tokens in t.shape[2:] for t in example.tensors):  # an adjacency has two axes of tokens
                yield f" with {what} in every axis of {tokens}", _resized(example, 1, tokens, count, alike=True)
    if any(t.dim() == 4 for t in example.tensors):
        yield " with smaller pictures", example.map(_smaller)
    if any(_is_padding(t, example) for t in example.tensors):
        for what, mask in _MASKS.items():
            yield f" with {what}", example.map(lambda t, mask=mask: mask(t) if _is_padding(t, example) else t)  # type: ignore[misc]
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
    """Return whether a tensor looks like a mask of rows: [batch, tokens], no floats, zeros and ones."""
    return t.dim() == 2 and not t.is_floating_point() and bool(((t == 0) | (t == 1)).all())


def _is_padding(t: Tensor, example: Inputs) -> bool:
    """Return whether it looks like a mask of rows, and is no [tokens, tokens] beside inputs of other samples."""
    others = [o.size(0) for o in example.tensors if o is not t and o.dim() > 1]
    return is_mask(t) and not (t.size(0) == t.size(1) and bool(others) and t.size(0) not in others)


def _shared(example: Inputs, axis: int) -> int | None:
    """Return the size that every tensor which has the axis has there; every tensor that carries samples has an axis of them."""
    tensors = example.carrying if axis == 0 else example.tensors
    sizes = {t.size(axis) if t.dim() > axis else 0 for t in tensors if axis == 0 or t.dim() > axis}
    size = sizes.pop() if len(sizes) == 1 else 0
    return size if size > 0 else None


def _positions(size: int, count: int) -> Tensor:
    """Return the positions to take from an axis of `size` to have `count`, i64[count]: the first, again and again."""
    return torch.arange(count) % size


def _resized(example: Inputs, axis: int, size: int, count: int, alike: bool = False) -> Inputs:
    """Return inputs with `count` instead of `size` in one axis, or in all from there on that have that size."""
    there = _positions(size, count)

    def change(t: Tensor) -> Tensor:
        for a in range(axis, t.dim() if alike else min(axis + 1, t.dim())):
            t = t.index_select(a, there) if t.size(a) == size else t
        return t

    return example.map(change)


def _smaller(t: Tensor) -> Tensor:
    """Return a picture without its last rows and columns, at least half of it."""
    return t[:, :, : -(-t.size(2) // 2), : -(-t.size(3) // 2)] if t.dim() == 4 else t


def _mask(pattern: Callable[[int, int], Tensor], inverted: bool = False) -> Callable[[Tensor], Tensor]:
    return lambda mask: written(mask, pattern(*mask.shape), inverted)


# Padding is marked by zeros in some models, by ones in others.
_MASKS: dict[str, Callable[[Tensor], Tensor]] = {
    **{what: _mask(pattern) for what, pattern in PATTERNS.items()},
    f"{RAGGED} inverted": _mask(PATTERNS[RAGGED], inverted=True),
}
