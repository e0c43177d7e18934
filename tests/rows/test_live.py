"""Live rows at run time: where they are, and the crossings between the padded layout and theirs; eager and scripted."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from dendrofx.runtime.chunks import cut_chunks, group_chunks
from dendrofx.runtime.kernels import padded_rows
from dendrofx.runtime.live import count_live, live_rows, pad_rows, unpad_rows, worth_leaving_out

MASKS = {
    "ragged": [[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0]],
    "left padded": [[0, 1, 1, 1], [0, 0, 0, 1], [0, 0, 1, 1]],
    "holes": [[1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 1]],
    "all live": [[1, 1, 1, 1]] * 3,
    "none live": [[0, 0, 0, 0]] * 3,
}


@pytest.fixture(params=["eager", "scripted"])
def ready(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    return torch.jit.script if request.param == "scripted" else lambda function: function


def alive(mask: Tensor) -> Tensor:
    """bool: what the masks of `MASKS` mean."""
    return (mask != 0) | (mask != 0).logical_not().all(1, keepdim=True)


masks = st.integers(1, 5).flatmap(
    lambda tokens: st.lists(st.lists(st.integers(0, 1), min_size=tokens, max_size=tokens), min_size=1, max_size=4)
)
any_mask = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.int32, torch.float32])
@any_mask
@given(masks)
def test_where_live_rows_are(ready: Callable[[Any], Any], dtype: torch.dtype, mask: list[list[int]]) -> None:
    live = ready(live_rows)
    rows = live(torch.tensor(mask, dtype=dtype), False)
    wanted = alive(torch.tensor(mask))
    dead = wanted.reshape(-1).logical_not().nonzero().squeeze(1)
    whole = not worth_leaving_out(len(dead), wanted.numel())  # dead rows are too few to be left out
    assert torch.equal(rows.blank, dead if whole else dead[:0])
    wanted = torch.ones_like(wanted) if whole else wanted
    expected = wanted.reshape(-1).nonzero().squeeze(1)
    assert rows.live == len(expected)
    assert torch.equal(rows.index[: rows.live], expected)
    assert rows.lengths == wanted.sum(1).tolist()
    assert (rows.batch, rows.tokens) == tuple(wanted.shape)
    assert torch.equal(rows.sample * rows.tokens + rows.token, rows.index)
    assert count_live(rows) == min(padded_rows(rows.live), wanted.numel())
    assert set(rows.index[rows.live :].tolist()) <= {int(expected[-1])}
    inverted = live((torch.tensor(mask) == 0).to(dtype), True)
    assert torch.equal(inverted.index, rows.index)
    assert inverted.lengths == rows.lengths


def test_a_mask_with_other_strides(ready: Callable[[Any], Any]) -> None:
    mask = torch.tensor(MASKS["ragged"])
    live = ready(live_rows)
    assert torch.equal(live(mask.t().contiguous().t(), False).index, live(mask, False).index)
    assert torch.equal(live(mask.repeat(1, 2)[:, :4], False).index, live(mask, False).index)
    rows = live(torch.tensor([[1, 1, 0, 0]]).expand(3, -1), False)
    assert rows.sample[: rows.live].tolist() == [0, 0, 1, 1, 2, 2]


def test_no_samples(ready: Callable[[Any], Any]) -> None:
    rows = ready(live_rows)(torch.zeros(0, 4), False)
    x = ready(unpad_rows)(torch.zeros(0, 4, 3), rows, 0, 1)
    assert (count_live(rows), rows.lengths, x.shape) == (0, [], (1, 0, 3))
    assert ready(pad_rows)(x, rows, 0, 1).shape == (0, 4, 3)


PLACES = {"bt.": (0, 1), "tb.": (1, 0), "b.t.": (0, 2), "bt..": (0, 1), ".b.t": (1, 3), "bt": (0, 1)}


@pytest.mark.parametrize("layout", PLACES)
@any_mask
@given(masks)
def test_there_and_back(ready: Callable[[Any], Any], layout: str, mask: list[list[int]]) -> None:
    (b, t), given = PLACES[layout], torch.tensor(mask)
    rows, sizes = live_rows(given, False), {".": 5, "b": given.size(0), "t": given.size(1)}
    x = torch.randn([sizes[letter] for letter in layout])
    live = ready(unpad_rows)(x, rows, b, t)
    whole = rows.live == given.numel()
    if not whole:
        assert (live.size(b), live.size(t)) == (1, count_live(rows))
    by_row, by_row_back = (v.movedim((b, t), (0, 1)) for v in (x, ready(pad_rows)(live, rows, b, t)))
    kept = alive(given)
    taken = torch.ones_like(kept) if whole else kept
    assert torch.equal(live.movedim((b, t), (0, 1)).flatten(0, 1)[: rows.live], by_row[taken])
    assert torch.equal(by_row_back[kept], by_row[kept])
    assert not by_row_back[~kept].any()


def test_all_live_moves_nothing() -> None:
    x, rows = torch.randn(3, 4, 5), live_rows(torch.ones(3, 4), False)
    live = unpad_rows(x, rows, 0, 1)
    assert live.data_ptr() == x.data_ptr()
    assert pad_rows(live, rows, 0, 1).data_ptr() == x.data_ptr()


def test_a_value_that_is_the_same_for_every_sample(ready: Callable[[Any], Any]) -> None:
    rows = live_rows(torch.tensor(MASKS["holes"]), False)
    table = torch.randn(1, 4, 5)
    live = ready(unpad_rows)(table, rows, -1, 1)
    assert torch.equal(live[0, : rows.live], table[0, [0, 2, 1, 0, 3]])


@pytest.mark.parametrize(
    ("size", "b", "t"), [((3, 5, 2), 0, 1), ((2, 4, 2), 0, 1), ((4, 3, 2), 0, 1), ((1, 5, 2), -1, 1)]
)
def test_a_value_that_does_not_fit_the_mask(size: tuple[int, ...], b: int, t: int) -> None:
    rows = live_rows(torch.ones(3, 4), False)
    with pytest.raises(RuntimeError) as caught:
        unpad_rows(torch.zeros(size), rows, b, t)
    assert str(caught.value) == (
        f"the mask of dead rows is shaped [3, 4], which does not fit a value of torch.Size({list(size)})"
    )


@pytest.mark.parametrize("size", [(4,), (3, 4, 1), (1, 1, 3, 4)])
def test_a_mask_of_another_shape(ready: Callable[[Any], Any], size: tuple[int, ...]) -> None:
    with pytest.raises(Exception, match=r"the mask of dead rows is shaped .*, it takes \[batch, tokens\]"):
        ready(live_rows)(torch.zeros(size), False)


SIDES = {"ragged": "right", "left padded": "left", "holes": "", "all live": "both", "none live": "both"}


@pytest.mark.parametrize("mask", SIDES)
@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_on_one_side(ready: Callable[[Any], Any], mask: str, side: str) -> None:
    live, given = ready(live_rows), torch.tensor(MASKS[mask])
    if SIDES[mask] in (side, "both"):
        assert torch.equal(live(given, False, side).index, live(given, False, "any").index)
        return
    with pytest.raises(Exception, match=f"the mask has padding that is not on the {side}, the side on which the model"):
        live(given, False, side)


@pytest.mark.parametrize(
    ("lengths", "most", "chunk_of", "before", "used"),
    [
        ([3, 2, 4], 5, [1, 1, 0], [0, 3, 0], [4, 5]),
        ([3, 3, 3], 9, [0, 1, 2], [0, 0, 0], [3, 3, 3]),  # of one length: alone
        ([9, 1, 1], 5, [0, 1, 1], [0, 0, 1], [9, 2]),
        ([1, 9, 1, 2], 4, [1, 0, 1, 1], [3, 0, 2, 0], [9, 4]),
        ([0, 2, 0, 3, 0], 5, [-1, 0, -1, 0, -1], [0, 3, 0, 0, 0], [5]),
        ([], 5, [], [], []),
        ([0, 0], 5, [-1, -1], [0, 0], []),
    ],
)
def test_chunks(
    ready: Callable[[Any], Any], lengths: list[int], most: int, chunk_of: list[int], before: list[int], used: list[int]
) -> None:
    cut = ready(cut_chunks) if lengths else cut_chunks  # TorchScript takes an empty list for one of tensors
    assert cut(lengths, most)[:3] == (chunk_of, before, used)
    assert [lengths[s] + before[s] <= used[c] for s, c in enumerate(chunk_of) if c >= 0].count(False) == 0


def test_chunks_are_grouped_by_size(ready: Callable[[Any], Any]) -> None:
    """Short ones are alike, long ones in classes of 16 rows; by chunk where it starts."""
    places, groups, chunks, sizes = ready(group_chunks)([70, 40, 66, 48, 30], 48)
    assert (groups, chunks, sizes) == ([0, 1, 0, 1, 1], [2, 3], [70, 48])
    assert places == [0, 140, 70, 188, 236]
