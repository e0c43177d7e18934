"""Models with samples enough to ask whether certificates hold: what is fitted and searched on, and a pool of all others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from benchmarks.models import digits, minilm, text, tiara
from benchmarks.models.encoder import pad


@dataclass(frozen=True)
class Pool:
    """A model, what its light models are fitted on, and the pool.

    Attributes:
        sets: batches that fit lights, that fit gates, and two that settings are searched on.
        pool: batches of all other samples, from other sources.
        blocks: whether routed blocks compete too: every one of their settings is run on the pool.
    """

    name: str
    model: nn.Module
    sets: tuple[Sequence[Any], Sequence[Any], Sequence[Any], Sequence[Any]]
    pool: Sequence[Any]
    dead_rows: str | None = None
    blocks: bool = True


def digits_pool() -> Pool:
    """360 digits fit and search, the pool is 640 others."""
    images, _ = digits.load_data()
    others = images[digits.TRAIN :]
    parts = others.split([200, 80, 40, 40, len(others) - 360])
    return Pool("digits", digits.load_model(), ([parts[0]], [parts[1]], [parts[2]], [parts[3]]), [parts[4]])


def tiara_pool() -> Pool:
    """Whole FASTA records on one side: 15 % of them fit and search."""
    rows, record = tiara.load_fragments()
    place = torch.randperm(int(record.max()) + 1, generator=torch.Generator().manual_seed(0))[record] / (
        record.max() + 1
    )
    bounds = (0.0, 0.08, 0.11, 0.13, 0.15, 1.0)
    parts = [rows[(place >= low) & (place < high)] for low, high in pairwise(bounds)]
    return Pool(
        "tiara", tiara.load_model(), ([parts[0]], [parts[1]], [parts[2]], [parts[3]]), list(parts[4].split(512))
    )


def minilm_pool() -> Pool:
    """The encoder with its head: 480 sentences fit and search, the pool is 2000 of other documents."""
    _, others = minilm.load_data()
    mine, theirs = text.split(others, 480)
    ids = text.tokenize([s.text for s in mine])[:480]
    batches = [pad(ids[i : i + 32]) for i in range(0, len(ids), 32)]
    sets = batches[:6], batches[6:10], batches[10:12], batches[12:15]
    pool = sorted(text.tokenize([s.text for s in theirs])[:2000], key=len)
    return Pool(
        "minilm",
        minilm.load_classifier(),
        sets,
        [pad(pool[i : i + 64]) for i in range(0, len(pool), 64)],
        "attention_mask",
        blocks=False,
    )


POOLS: dict[str, Callable[[], Pool]] = {"tiara": tiara_pool, "minilm": minilm_pool, "digits": digits_pool}
