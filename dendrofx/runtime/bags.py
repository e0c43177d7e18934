"""Bags of embeddings, one per sample: a plain function that TorchScript compiles."""

from typing import Optional

import torch
from torch import Tensor


def bag_rows(weight: Tensor, x: Tensor, mode: int, weights: Optional[Tensor], padding_idx: Optional[int]) -> Tensor:
    """Map ids [rows, ids] to [rows, features], as `embedding_bag` does.

    Args:
        weight: the table, [entries, features].
        x: whole numbers.
        mode: 0 sums, 1 takes the mean, 2 the largest.
        weights: of the ids, [rows, ids], or None.
        padding_idx: an id that counts for nothing, or None.
    """
    begins = torch.arange(x.size(0), dtype=x.dtype) * x.size(1)
    given = None if weights is None else weights.reshape([-1])
    return torch.embedding_bag(weight, x.reshape([-1]), begins, False, mode, False, given, False, padding_idx)[0]
