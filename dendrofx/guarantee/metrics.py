"""Losses in [0, 1]: how far one sample's output is from the original's, in the terms of a budget.

flip          0/1: the decision is another: the largest of several logits, the sign of a single one
deviation     relative L2 distance, clipped to 1
exceeds(x)    0/1: the deviation is above x
cosine        (1 - cosine similarity) / 2, for embeddings
"""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from dendrofx.errors import InputError
from dendrofx.runtime.model_scores import flat_rows
from dendrofx.values.measure import EPS, deviation

# From the original's output and another, each [N, ...], to losses f64[N].
Metric = Callable[[Tensor, Tensor], Tensor]


def decisions(output: Tensor) -> Tensor:
    """i64[N, ...]: the index of the largest of the last axis; where that is one logit (or there is none), whether it is above 0."""
    if output.dim() == 1 or output.size(-1) == 1:
        return (flat_rows(output) > 0).long()
    return flat_rows(output.argmax(-1))


def flips(reference: Tensor, output: Tensor) -> Tensor:
    """1 where any decision of a sample is another, or where its output is not finite and the reference is."""
    broken = flat_rows(reference).isfinite().all(1) & ~flat_rows(output).isfinite().all(1)
    return ((decisions(reference) != decisions(output)).any(1) | broken).double()


def relative_distance(reference: Tensor, output: Tensor) -> Tensor:
    """Relative L2 distance of the flattened sample, not clipped."""
    return deviation(flat_rows(reference), flat_rows(output))


def clipped_deviation(reference: Tensor, output: Tensor) -> Tensor:
    """Relative L2 distance of the flattened sample, at most 1."""
    return relative_distance(reference, output).clamp_max(1.0)


def half_cosine_distance(reference: Tensor, output: Tensor) -> Tensor:
    """(1 - cos) / 2 of the flattened samples; two zero vectors are alike."""
    a, b = flat_rows(reference).double(), flat_rows(output).double()
    cosine = F.cosine_similarity(a, b, dim=1, eps=EPS)
    both_zero = (a.norm(dim=1) <= EPS) & (b.norm(dim=1) <= EPS)
    loss = torch.where(both_zero, 0.0, (1 - cosine.clamp(-1, 1)) / 2)
    return loss.nan_to_num(nan=1.0)


def named_metric(name: str) -> tuple[Metric, bool]:
    """A metric by name, and whether its losses are 0 or 1.

    Raises:
        InputError: no such metric.
    """
    if name == "flip":
        return flips, True
    if name == "deviation":
        return clipped_deviation, False
    if name == "cosine":
        return half_cosine_distance, False
    if (found := re.fullmatch(r"exceeds\(([0-9.eE+-]+)\)", name)) is not None:
        try:
            limit = float(found[1])
        except ValueError:
            limit = -1.0
        if 0 < limit < float("inf"):
            return lambda a, b: (relative_distance(a, b) > limit).double(), True
    raise InputError(
        f"metric {name!r} is none of 'flip', 'deviation', 'exceeds(0.05)' and 'cosine'; pass a function of (reference, output)"
        " that returns a loss in [0, 1] per sample for any other"
    )
