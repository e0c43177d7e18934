"""On which inputs a graph is run against its model."""

from typing import Any

import pytest
import torch
from torch import Tensor

from dendrofx.graph.capture.variants import is_mask, variants
from dendrofx.values.inputs import Inputs

IDS = torch.arange(1, 33).reshape(4, 8)
MASK = (torch.arange(8) < torch.tensor([8, 5, 3, 1])[:, None]).long()
TEXT = Inputs((), (("ids", IDS), ("mask", MASK)))


def of(example: Inputs, **options: Any) -> dict[str, list[Tensor]]:
    return {what.strip(): inputs.tensors for what, inputs in variants(example, **options)}


def test_sizes_and_masks() -> None:
    found = of(TEXT)
    assert {what: tuple(ids.shape) for what, (ids, _) in found.items()} == {
        "": (4, 8),
        "with one sample": (1, 8),
        "with three samples": (3, 8),
        "with fewer tokens": (4, 6),
        "with one token less": (4, 7),
        "with every mask full": (4, 8),
        "with every mask empty": (4, 8),
        "with ragged masks": (4, 8),
        "with masks ragged at the left": (4, 8),
        "with holes in the masks": (4, 8),
        "with ragged masks inverted": (4, 8),
    }
    assert torch.equal(found["with three samples"][0], IDS[:3])
    assert found["with ragged masks"][1].sum(1).tolist() == [8, 6, 4, 1]
    assert found["with masks ragged at the left"][1][2].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert found["with ragged masks inverted"][1][2].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert all(torch.equal(ids, IDS) for what, (ids, _) in found.items() if "mask" in what)


def test_a_mask_of_bools_keeps_its_type() -> None:
    found = of(Inputs((MASK.bool(),)))
    assert {t.dtype for (t,) in found.values()} == {torch.bool}
    assert found["with ragged masks inverted"][0][1].tolist() == [False] * 6 + [True] * 2


def test_large_examples_are_cut_for_all_but_the_first_run() -> None:
    sizes = {
        what: x.size(0) for what, (x,) in of(Inputs((torch.zeros(64, 9),)), values=True, limits=[(0, 64, 70)]).items()
    }
    assert sizes.pop("") == 64
    assert sizes.pop("with one sample") == 1
    assert sizes.pop("with three samples") == 3
    assert sizes.pop("with 71 entries in axis 0") == 71
    assert set(sizes.values()) == {4}


def test_small_examples_grow() -> None:
    found = of(Inputs((torch.zeros(1, 2, 5),)))
    assert {what: tuple(x.shape) for what, (x,) in found.items()} == {
        "": (1, 2, 5),
        "with three samples": (3, 2, 5),
        "with more tokens": (1, 4, 5),
    }


def test_inputs_that_share_no_size_are_left_as_they_are() -> None:
    assert list(of(Inputs((torch.zeros(3, 4), torch.zeros(5))))) == ["", "with fewer tokens", "with one token less"]
    assert list(of(Inputs((torch.zeros(()), torch.zeros(3))))) == [""]
    assert list(of(Inputs((torch.zeros(3, 4), torch.zeros(3, 5), torch.ones(3))))) == [
        "",
        "with one sample",
        "with three samples",
    ]


def test_an_axis_of_the_same_size_in_one_tensor_changes_too() -> None:
    found = of(Inputs((torch.zeros(2, 6, 5), torch.zeros(2, 6, 6))))
    assert {what: [tuple(t.shape) for t in tensors] for what, tensors in found.items() if "token" in what} == {
        "with fewer tokens": [(2, 4, 5), (2, 4, 6)],
        "with fewer tokens in every axis of 6": [(2, 4, 5), (2, 4, 4)],
        "with one token less": [(2, 5, 5), (2, 5, 6)],
        "with one token less in every axis of 6": [(2, 5, 5), (2, 5, 5)],
    }


def test_a_square_of_other_samples_is_no_mask_of_rows() -> None:
    causal = torch.ones(6, 6, dtype=torch.bool).tril()
    assert not [what for what in of(Inputs((torch.zeros(3, 6, 5), causal))) if "mask" in what]
    assert [what for what in of(Inputs((torch.zeros(6, 6, 5), causal))) if "mask" in what]  # as many samples as tokens


def test_pictures_are_cut() -> None:
    assert of(Inputs((torch.zeros(2, 3, 8, 5),)))["with smaller pictures"][0].shape == (2, 3, 4, 3)


def test_values_and_limits_are_tried_where_asked_for() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    found = of(Inputs((x,)), values=True, limits=[(0, 2, 4), (1, 2, 2)])
    assert found["with 5 entries in axis 0"][0][:, 0].tolist() == [1, 3, 1, 3, 1]
    assert found["with 3 entries in axis 1"][0].tolist() == [[1, 2, 1]]
    assert found["with zeros"][0].tolist() == [[0, 0], [0, 0]]
    assert found["with its numbers negated"][0].tolist() == [[-1, -2], [-3, -4]]
    assert found["with its numbers a hundredfold"][0].tolist() == [[100, 200], [300, 400]]
    assert found["with its values in reverse"][0].tolist() == [[4, 3], [2, 1]]


@pytest.mark.parametrize(
    ("tensor", "mask"),
    [(MASK, True), (MASK.bool(), True), (MASK.float(), False), (MASK[0], False), (IDS, False)],
)
def test_what_looks_like_a_mask(tensor: Tensor, mask: bool) -> None:
    assert is_mask(tensor) is mask
