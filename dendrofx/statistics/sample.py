"""A seeded choice of a dataset's samples, that is the same however the dataset is cut into parts.

A sample's key is a hash of the sample itself. So it does not matter which part it is in, and equal samples are dealt to one set:
none that something is tested on was fitted on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

Columns = Mapping[str, Tensor]
MASK = 2**63 - 1


@dataclass(frozen=True)
class Sample:
    """The samples with the smallest keys: a uniform choice without replacement, "bottom-k".

    Source: E. Cohen, H. Kaplan, "Summarizing data using bottom-k sketches", 2007.

    Attributes:
        most: how many are kept.
        keys: i64[k], ascending.
        columns: their inputs by name, [k, ...].
        seen: of how many they were chosen.
    """

    most: int
    keys: Tensor
    columns: Columns
    seen: int

    @staticmethod
    def of(keys: Tensor, columns: Columns, most: int) -> Sample:
        """Choose among samples with keys i64[N]."""
        order = keys.argsort(stable=True)[:most]
        return Sample(most, keys[order], {name: column[order] for name, column in columns.items()}, len(keys))

    def __add__(self, other: Sample) -> Sample:
        both = {name: torch.cat([column, other.columns[name]]) for name, column in self.columns.items()}
        found = Sample.of(torch.cat([self.keys, other.keys]), both, self.most)
        return Sample(self.most, found.keys, found.columns, self.seen + other.seen)


def sample_keys(columns: Columns, seed: int) -> Tensor:
    """Return i64[N, 2], two independent keys for each sample in 0 .. 2^63 - 1; BLAKE2b of its values.

    Args:
        columns: [N, ...] each; their names and dtypes count too.
        seed: of the choice.
    """
    head = hashlib.blake2b(f"{seed}".encode(), digest_size=16)
    rows = []
    for name, column in sorted(columns.items()):
        head.update(f"{name}:{column.dtype}{list(column.shape[1:])};".encode())
        flat = column.detach().contiguous().reshape(len(column), column[:1].numel() if len(column) else 0)
        rows.append(flat.view(torch.uint8).numpy() if flat.numel() else flat.numpy())
    keys = []
    for parts in zip(*rows, strict=True):
        digest = head.copy()
        for part in parts:
            digest.update(part.data)
        found = digest.digest()
        keys.append([int.from_bytes(found[at : at + 8], "little") & MASK for at in (0, 8)])
    return torch.tensor(keys, dtype=torch.int64).reshape(-1, 2)


def dealt(key: Tensor, shares: Sequence[float]) -> Tensor:
    """Return i64[N], the set that each sample is dealt to: shares of all of them, the last set takes the rest."""
    bounds = torch.tensor([int(share * 2**63) for share in accumulate(shares)], dtype=torch.int64)
    return torch.searchsorted(bounds, key.contiguous(), right=True)
