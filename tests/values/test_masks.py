"""Patterns of live rows, and masks of every type that have them."""

import pytest
import torch
from torch import Tensor

from dendrofx.values.masks import PATTERNS, live_of, patterns, written

ALIVE = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]]).bool()
LIVE = {
    "bool": ALIVE,
    "bytes": ALIVE.to(torch.uint8) * 255,
    "twos": ALIVE.long() * 2,
    "minus one": -ALIVE.int(),
    "float": ALIVE.float(),
    "bfloat16": ALIVE.to(torch.bfloat16),
    "weights": ALIVE * torch.tensor([0.5, 0.25, 2.0, 1.0, 3.0]),
}
DEAD = {"bool": ~ALIVE, "minus infinity": torch.where(ALIVE, 0.0, -torch.inf), "lowest": torch.where(ALIVE, 0.0, -1e4)}


@pytest.mark.parametrize(("mask", "inverted"), [(m, False) for m in LIVE.values()] + [(m, True) for m in DEAD.values()])
def test_every_pattern_is_written_in_the_values_of_the_mask(mask: Tensor, inverted: bool) -> None:
    made = dict(patterns(mask, inverted))
    assert list(made) == list(PATTERNS)
    for name, other in made.items():
        assert other.dtype == mask.dtype
        assert torch.equal(live_of(other, inverted), PATTERNS[name](*mask.shape))
        assert set(other.unique().tolist()) <= set(mask.unique().tolist())
    assert torch.equal(written(mask, ALIVE, inverted), mask)


def test_patterns() -> None:
    found = {name: pattern(3, 7).int() for name, pattern in PATTERNS.items()}
    assert found["every mask full"].sum() == 21
    assert found["every mask empty"].sum() == 0
    assert found["ragged masks"].sum(1).tolist() == [7, 4, 1]
    assert found["masks ragged at the left"][1].tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert found["holes in the masks"].tolist() == [[1, 0, 1, 1, 0, 1, 1], [1, 1, 1, 0, 1, 1, 1], [1, 1, 0, 1, 1, 0, 1]]


def test_segments_grow_into_what_was_padding() -> None:
    segments = torch.tensor([[1, 1, 2, 0, 0, 3], [0, 0, 4, 4, 0, 0], [0, 0, 0, 0, 0, 0]])
    full = written(segments, torch.ones(3, 6, dtype=torch.bool), False)
    assert full.tolist() == [[1, 1, 2, 2, 2, 3], [4] * 6, [1] * 6]


@pytest.mark.parametrize(
    ("mask", "inverted"), [(torch.zeros(2, 3), False), (torch.zeros(2, 3, dtype=torch.bool), True)]
)
def test_a_mask_of_zeros_alone_is_marked_by_ones(mask: Tensor, inverted: bool) -> None:
    other = written(mask, torch.tensor([[True, False, True]]).expand(2, 3), inverted)
    assert other.dtype == mask.dtype
    assert other[0].tolist() == ([0, 1, 0] if inverted else [1, 0, 1])
