"""The case of padding: lengths and limits are those of its source, and what others have published is never a measurement."""

import pytest
import torch
from torch import Tensor

from benchmarks.cases import CASES, CaseOptions
from benchmarks.cases.padding import PUBLISHED, draw_lengths, token_limit
from benchmarks.models.encoder import pad, random_encoder
from dendrofx import InputError
from dendrofx.values.inputs import Inputs

# By distribution, as published: the share of padding in percent, and the gain of packing by hand.
SOURCE = {
    "short uniform": (45.85, 1.42),
    "short zipf": (61.5, 1.94),
    "mixed tail": (87.43, 5.55),
    "flat long": (0, 0.83),
}
LIMITS = {"short uniform": 1.85, "short zipf": 2.6, "mixed tail": 7.96, "flat long": 1}


@pytest.mark.parametrize("name", SOURCE)
def test_lengths_are_those_of_the_source(name: str) -> None:
    lengths = draw_lengths()[name]
    assert list(draw_lengths()) == list(SOURCE)
    assert len(lengths) == 64
    assert 100 * (1 - sum(lengths) / (64 * max(lengths))) == pytest.approx(SOURCE[name][0], abs=0.005)
    assert token_limit([Inputs.of(pad([[1] * n for n in lengths]))]) == pytest.approx(LIMITS[name], abs=0.005)
    assert (PUBLISHED.batch, PUBLISHED.gains[name]) == (64, SOURCE[name][1])


def test_a_limit_is_over_all_batches() -> None:
    assert token_limit([Inputs.of(pad([[1] * 4, [1]])), Inputs.of(pad([[1] * 2]))]) == 10 / 7


@pytest.mark.real("transformers")
def test_the_case_has_a_table_for_each_distribution() -> None:
    case = CASES["padding"](CaseOptions(width=12, depth=1))
    assert (case.orders, case.batch_sizes, case.lossless, case.synthetic) == (tuple(SOURCE), (64,), True, True)
    assert case.title.startswith("an encoder like RoBERTa, 1 layers of 12, ")
    assert "random weights and ids" in case.title
    assert case.limit is not None
    for order, limit in LIMITS.items():
        batches = case.test.batches(64, order)
        assert [b.samples for b in batches] == [64]
        assert case.limit.of(batches) == pytest.approx(limit, abs=0.005)


@pytest.mark.real("transformers")
def test_random_encoder_is_the_same_for_a_seed_and_pads_on_the_right() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    encoder, again = (random_encoder(2, 24, 50, 9, seed=4) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(encoder.parameters(), again.parameters(), strict=True))
    assert not encoder.training
    longest, short = [1, 7, 3, 9, 2, 5, 6, 8, 4], [3, 9]
    with torch.no_grad():
        both: Tensor = encoder(**pad([longest, short]))
        alone: Tensor = encoder(**pad([short]))
    torch.testing.assert_close(both[1:], alone)


def test_widths_that_its_heads_do_not_divide_are_refused() -> None:
    with pytest.raises(InputError, match=r"^--width must be a multiple of the 12 heads, got 100$"):
        CASES["padding"](CaseOptions(width=100))
