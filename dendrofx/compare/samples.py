"""Test samples, and the batches that are cut from them: rows of one width, or sequences that a batch pads to its longest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dendrofx.values.inputs import Inputs

Order = str  # "random", "sorted" by length, or one of a case's own


class Samples(Protocol):
    """Samples in a random order, fixed by the case's seed."""

    def __len__(self) -> int: ...

    def batches(self, size: int, order: Order = "random") -> list[Inputs]:
        """Yield all samples in batches of `size`, the last one perhaps smaller."""


@dataclass(frozen=True)
class Rows:
    """f32[N, in], one row a sample. All rows are as long, so sorting changes nothing."""

    rows: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self, size: int, order: Order = "random") -> list[Inputs]:
        """See `Samples`."""
        return [Inputs((part,)) for part in self.rows.split(size)]


@dataclass(frozen=True)
class Sequences:
    """Token ids of each sample.

    Attributes:
        ids: per sample.
        pad: ids of a batch -> named tensors, [batch, longest].
    """

    ids: Sequence[Sequence[int]]
    pad: Callable[[Sequence[Sequence[int]]], Mapping[str, Tensor]]

    def __len__(self) -> int:
        return len(self.ids)

    def batches(self, size: int, order: Order = "random") -> list[Inputs]:
        """See `Samples`; sorted batches hold samples of about one length."""
        ids = sorted(self.ids, key=len) if order == "sorted" else self.ids
        return [Inputs.of(self.pad(part)) for part in _parts(ids, size)]


@dataclass(frozen=True)
class Kinds:
    """Samples of several kinds, a table each: the name of a kind is the order to ask for.

    Attributes:
        kinds: by name. The first one is what every other order gives, and has the number of samples that is told.
    """

    kinds: Mapping[str, Samples]

    def __len__(self) -> int:
        return len(self._first)

    @property
    def _first(self) -> Samples:
        return next(iter(self.kinds.values()))

    def batches(self, size: int, order: Order = "random") -> list[Inputs]:
        """See `Samples`."""
        return self.kinds.get(order, self._first).batches(size)


def _parts(ids: Sequence[Sequence[int]], size: int) -> Iterator[Sequence[Sequence[int]]]:
    for start in range(0, len(ids), size):
        yield ids[start : start + size]


def timed_batches(samples: Samples, size: int, order: Order, seed: int) -> list[Inputs]:
    """Return what is timed in turns: batches of exactly `size`, in a seeded order; where samples are too few, they are repeated."""
    whole = [b for b in samples.batches(size, order) if b.samples == size]
    if not whole:
        short = max(samples.batches(size, order), key=lambda b: b.samples)
        whole = [short.take(torch.arange(size) % short.samples)]
    generator = torch.Generator().manual_seed(seed)
    return [whole[i] for i in torch.randperm(len(whole), generator=generator).tolist()]
