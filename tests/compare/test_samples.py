"""Test samples: the batches that are cut from them, in both orders, and those that are timed."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.models.encoder import pad
from dendrofx.compare.samples import Kinds, Order, Rows, Samples, Sequences, timed_batches
from dendrofx.values.inputs import Inputs

LENGTHS = [5, 2, 9, 2, 7, 3, 1, 8, 4, 6]


def sequences(lengths: Sequence[int] = LENGTHS) -> Sequences:
    """Each sample of one id, its number from 1."""
    return Sequences([[i + 1] * n for i, n in enumerate(lengths)], pad)


def rows(count: int = 10) -> Rows:
    """Each row of its number, from 1."""
    return Rows(torch.arange(1.0, count + 1)[:, None].expand(count, 3))


def first_tensor(batch: Inputs) -> Tensor:
    return batch.tensors[0]


def numbers(batches: list[Inputs]) -> list[list[int]]:
    """The samples in each batch."""
    return [[int(n) for n in first_tensor(b).amax(1)] for b in batches]


BOTH = pytest.mark.parametrize("samples", [rows(), sequences()], ids=["rows", "sequences"])
ORDERS: Any = pytest.mark.parametrize("order", ["random", "sorted"])


# --------------------------------------------------------------------------------------------------------- batches


@BOTH
@ORDERS
@pytest.mark.parametrize(("size", "wanted"), [(1, [1] * 10), (3, [3, 3, 3, 1]), (5, [5, 5]), (10, [10]), (64, [10])])
def test_every_sample_is_in_one_batch_and_only_the_last_may_be_small(
    samples: Samples, order: Order, size: int, wanted: list[int]
) -> None:
    batches = samples.batches(size, order)
    assert [b.samples for b in batches] == wanted
    assert sorted(n for batch in numbers(batches) for n in batch) == list(range(1, len(samples) + 1))


@BOTH
def test_the_random_order_is_that_of_the_samples(samples: Samples) -> None:
    assert numbers(samples.batches(4)) == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]
    assert numbers(samples.batches(4, "random")) == numbers(samples.batches(4))


def test_sorted_batches_hold_samples_of_about_one_length() -> None:
    batches = sequences().batches(4, "sorted")
    lengths = [dict(b.kwargs)["attention_mask"].sum(1).tolist() for b in batches]
    assert lengths == [[1, 2, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert numbers(batches) == [[7, 2, 4, 6], [9, 1, 10, 5], [8, 3]], "samples of one length keep their order"


def test_sorting_leaves_the_samples_as_they_were() -> None:
    samples = sequences()
    samples.batches(4, "sorted")
    assert numbers(samples.batches(10)) == [list(range(1, 11))]


def test_rows_are_all_as_long_so_that_sorting_changes_nothing() -> None:
    assert numbers(rows().batches(3, "sorted")) == numbers(rows().batches(3))


def test_a_batch_is_padded_to_its_own_longest() -> None:
    first, second, _ = sequences().batches(4)
    assert [first_tensor(b).size(1) for b in (first, second)] == [9, 8]
    ids, mask = (dict(first.kwargs)[name] for name in ("input_ids", "attention_mask"))
    assert mask.sum(1).tolist() == LENGTHS[:4]
    assert torch.equal(mask != 0, ids != 0)
    assert [first_tensor(b).size(1) for b in sequences().batches(1)] == LENGTHS


def test_kinds_are_asked_for_as_orders() -> None:
    kinds = Kinds({"few": rows(4), "many": rows(7)})
    assert [numbers(kinds.batches(4, order)) for order in ("few", "many")] == [
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4], [5, 6, 7]],
    ]
    assert numbers(kinds.batches(9)) == [[1, 2, 3, 4]], "the first, where no kind is named"
    assert len(kinds) == 4


# ------------------------------------------------------------------------------------------------------ what is timed


@BOTH
@ORDERS
@pytest.mark.parametrize("size", [1, 2, 3, 5, 10])
def test_timed_batches_are_the_whole_ones_in_another_order(samples: Samples, order: Order, size: int) -> None:
    timed = timed_batches(samples, size, order, seed=0)
    whole = [b for b in samples.batches(size, order) if b.samples == size]
    assert len(timed) == len(samples) // size
    assert sorted(numbers(timed)) == sorted(numbers(whole))


@BOTH
def test_timed_batches_come_in_an_order_of_their_seed(samples: Samples) -> None:
    orders = [numbers(timed_batches(samples, 1, "random", seed)) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


@BOTH
def test_timed_batches_leave_the_global_generator_alone(samples: Samples) -> None:
    before = torch.get_rng_state()
    timed_batches(samples, 2, "random", 7)
    assert torch.equal(torch.get_rng_state(), before)


@BOTH
@pytest.mark.parametrize(("size", "repeated"), [(11, 1), (20, 10), (25, 15)])
def test_samples_that_are_too_few_are_repeated(samples: Samples, size: int, repeated: int) -> None:
    (batch,) = timed_batches(samples, size, "random", 0)
    assert batch.samples == size
    assert numbers([batch]) == [[i % 10 + 1 for i in range(10 + repeated)]]


def test_repeated_samples_keep_their_masks_and_their_order() -> None:
    (batch,) = timed_batches(sequences([3, 1]), 5, "sorted", 0)
    assert dict(batch.kwargs)["attention_mask"].sum(1).tolist() == [1, 3, 1, 3, 1]


def test_sorted_timed_batches_are_of_about_one_length() -> None:
    timed = timed_batches(sequences(), 5, "sorted", 0)
    assert sorted(first_tensor(b).size(1) for b in timed) == [4, 9]
