"""Calibration sets: read once, checked, cut into four disjoint parts."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import dendrofx
from dendrofx.values.calibration import LEAST_SAMPLES, WHOLE_BATCHES, Calibration
from dendrofx.values.inputs import Inputs
from tests.graph.capture.check import refused
from tests.models import compressible

PROPERTY = settings(derandomize=True, deadline=None, max_examples=60)


class Once:
    """An iterable that counts how often it is started and how many batches it gave."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches, self.starts, self.given = batches, 0, 0

    def __iter__(self) -> Iterator[Any]:
        self.starts += 1
        for batch in self.batches:
            self.given += 1
            yield batch


def numbered(sizes: list[int]) -> list[Tensor]:
    """Batches of f32[size, 1] whose values number all samples."""
    return list(torch.arange(sum(sizes), dtype=torch.float32)[:, None].split(sizes))


def parts_of(read: Calibration) -> list[list[Inputs]]:
    return [read.fit, read.gate, read.choose, read.tune]


def values(part: list[Inputs]) -> list[int]:
    return [int(v) for b in part for v in b.tensors[0][:, 0]]


def test_an_iterable_is_read_once() -> None:
    batches = Once(numbered([20, 20, 20]))
    Calibration.read(batches, 0)
    assert (batches.starts, batches.given) == (1, 3)


def test_transform_reads_its_calibration_once() -> None:
    batches = Once(list(torch.randn(300, 64).split(100)))
    dendrofx.transform(compressible(), calibration=batches, options=dendrofx.Options(tune_seconds=0))
    assert (batches.starts, batches.given) == (1, 3)


def test_a_generator_will_do() -> None:
    read = Calibration.read((b for b in numbered([30, 30])), 0)
    assert sum(read.samples) == 60


def test_a_single_tensor_is_one_batch() -> None:
    read = Calibration.read(torch.arange(50.0)[:, None], 0)
    assert read.samples == (20, 10, 10, 10)
    assert read.sizes == (50,)


@pytest.mark.parametrize("form", ["tensor", "tuple", "list", "dict"])
def test_batches_may_be_tensors_tuples_or_dicts(form: str) -> None:
    x = torch.arange(40.0)[:, None]
    batch: Any = {"tensor": x, "tuple": (x, -x), "list": [x, -x], "dict": {"a": x, "b": -x}}[form]
    read = Calibration.read([batch], 0)
    assert sorted(v for p in parts_of(read) for v in values(p)) == list(range(40))
    for part in parts_of(read):
        first = part[0]
        assert bool(first.kwargs) == (form == "dict")
        if form != "tensor":
            assert torch.equal(first.tensors[0], -first.tensors[1]), "inputs of one sample stay together"


def test_what_is_no_tensor_is_passed_along() -> None:
    read = Calibration.read([(torch.arange(40.0)[:, None], 3, "name")], 0)
    assert all(part[0].args[1:] == (3, "name") for part in parts_of(read))


@PROPERTY
@given(st.lists(st.integers(0, 40), min_size=1, max_size=14), st.integers(0, 5))
def test_the_four_sets_are_disjoint_and_cover_everything(sizes: list[int], seed: int) -> None:
    held = [s for s in sizes if s > 0]
    if not (len(held) >= WHOLE_BATCHES or max(held, default=0) >= LEAST_SAMPLES):
        return
    read = Calibration.read(numbered(sizes), seed)
    found = [v for part in parts_of(read) for v in values(part)]
    assert sorted(found) == list(range(sum(sizes)))
    assert all(part for part in parts_of(read))
    assert read.samples == tuple(len(values(p)) for p in parts_of(read))


@PROPERTY
@given(st.lists(st.integers(1, 12), min_size=WHOLE_BATCHES, max_size=30), st.integers(0, 5))
def test_batches_stay_whole_when_there_are_eight(sizes: list[int], seed: int) -> None:
    batches = numbered(sizes)
    read = Calibration.read(batches, seed)
    whole = {tuple(int(v) for v in b[:, 0]) for b in batches}
    got = [tuple(values([b])) for part in parts_of(read) for b in part]
    assert set(got) == whole
    assert len(got) == len(whole)


def test_seven_batches_are_cut_into_samples() -> None:
    read = Calibration.read(numbered([20] * 7), 0)
    assert [len(p) for p in parts_of(read)] == [7, 7, 7, 7]
    assert read.samples == (56, 28, 28, 28)


def test_the_cut_depends_on_the_seed_alone() -> None:
    def cut(seed: int) -> list[list[int]]:
        return [values(p) for p in parts_of(Calibration.read(numbered([100]), seed))]

    torch.manual_seed(1)
    first = cut(0)
    torch.manual_seed(2)
    assert cut(0) == first
    assert cut(1) != first


@pytest.mark.parametrize(("given_", "sizes"), [
    ([8, 50, 10], (8, 10, 50)),  # 10 is no size that nothing else is smaller than
    ([32] * 39 + [9], (32,)),
    ([32] * 10 + [0, 9, 0], (32,)),
    ([16, 64, 64, 9], (16, 64)),
    ([9] + [32] * 9, (9, 32)),  # it came first: somebody chose it
    ([32] * 9 + [9, 9], (9, 32)),
    ([9], (9,)),
    ([20, 20], (20,)),
])  # fmt: skip
def test_sizes_are_those_that_were_given_but_for_a_partial_last_batch(given_: list[int], sizes: Any) -> None:
    assert Calibration.read(numbered(given_), 0).sizes == sizes


@pytest.mark.parametrize("last", [9, 32, 40])
def test_a_partial_last_batch_is_known_as_one_when_shared_inputs_are(last: int) -> None:
    """Until then batches count as one sample: their inputs have no size in common."""
    batches = [{"x": b, "shared": torch.ones(3)} for b in numbered([32] * 9 + [last])]
    read = Calibration.read(batches, 0)
    assert read.sizes == (1,)
    assert read.with_shared(frozenset({"shared"})).sizes == ((32, 40) if last == 40 else (32,))


EMPTY = "calibration is empty: pass at least a few hundred samples, or calibration=None"
SINGLE = "calibration is an iterable of batches, got {}: for a single batch pass [batch]"
FEW = (
    "calibration has {} samples in {} batches; it is cut into four disjoint sets and needs at least 8 samples in one batch, or 8"
    " batches (a few hundred samples to be of use)"
)
NAN = torch.zeros(4, 3).masked_fill(torch.eye(4, 3).bool() & (torch.arange(3) < 2), torch.nan)
REFUSED: list[tuple[Any, str]] = [
    ([], EMPTY),
    (iter(()), EMPTY),
    ([torch.zeros(0, 4)], EMPTY),
    (torch.zeros(0, 4), EMPTY),
    (
        [torch.zeros(4, 3), {"x": NAN}],
        "calibration batch 1 (x=float32[4, 3]) holds 2 values that are NaN: drop these samples",
    ),
    (3, SINGLE.format("int")),
    ({"x": torch.zeros(9, 2)}, SINGLE.format("dict")),
    ("rows.pt", SINGLE.format("str")),
    ([torch.zeros(9, 2), "rows"], "calibration batch 1: a batch is a tensor, a tuple or a dict of tensors, got str"),
    ([(3, "a")], "calibration batch 0 holds no tensor: (3, 'a')"),
    (numbered([4]), FEW.format(4, 1)),
    (numbered([1] * 7), FEW.format(7, 7)),
    (numbered([4, 4]), FEW.format(8, 2)),
]


@pytest.mark.parametrize(("batches", "says"), REFUSED)
def test_what_cannot_be_cut_is_refused(batches: Any, says: str) -> None:
    with refused(says):
        Calibration.read(batches, 0)


def test_inputs_that_share_no_leading_size_are_never_cut() -> None:
    """A batch whose tensors share no leading size counts as one sample: all of it, or none, is in a set."""
    odd = (torch.arange(5.0)[:, None], torch.zeros(3))
    read = Calibration.read([(torch.arange(40.0)[:, None], torch.zeros(40)), odd], 0)
    found = [b for part in parts_of(read) for b in part if b.tensors[0].size(0) != b.tensors[1].size(0)]
    assert [b.tensors[0].size(0) for b in found] == [5]
