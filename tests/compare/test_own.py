"""A case of a caller's own model and data: what calibrates and what tests, and how batches are cut."""

import pytest
import torch
from torch import nn

from dendrofx import InputError
from dendrofx.compare.own import own_case
from dendrofx.values.inputs import Inputs

MODEL = nn.Linear(4, 2).eval()


def numbered(*sizes: int) -> list[torch.Tensor]:
    """Batches whose rows are numbered throughout."""
    return list(torch.arange(sum(sizes)).float().unsqueeze(1).expand(-1, 4).split(list(sizes)))


@pytest.mark.parametrize("sizes", [(100,), (30, 30, 30, 10), (10,) * 10])
def test_no_sample_calibrates_and_tests_and_none_is_lost(sizes: tuple[int, ...]) -> None:
    case = own_case(MODEL, numbered(*sizes), "mine")
    seen = torch.cat([b[:, 0] for b in case.calibration])
    tested = torch.cat([b.args[0][:, 0] for b in case.test.batches(7)])
    assert sorted([*seen.tolist(), *tested.tolist()]) == list(range(100))
    assert 60 <= len(seen) <= 90
    assert all(b.samples <= 7 for b in case.test.batches(7))


def test_named_inputs_keep_their_names_and_batches_of_other_lengths_are_not_joined() -> None:
    data = [{"ids": torch.ones(20, n, dtype=torch.long)} for n in (3, 5, 4, 6, 7)]
    case = own_case(MODEL, data, "tokens")
    assert [set(b) for b in case.calibration] == [{"ids"}] * 3
    found: list[Inputs] = case.test.batches(16)
    assert [(b.samples, dict(b.kwargs)["ids"].size(1)) for b in found] == [(16, 6), (4, 6), (16, 7), (4, 7)]


def test_too_few_samples_are_refused_with_how_many_it_takes() -> None:
    with pytest.raises(InputError, match=r"30 samples in 2 batches leave 12 to test on: give 20 or more"):
        own_case(MODEL, numbered(18, 12), "mine")
