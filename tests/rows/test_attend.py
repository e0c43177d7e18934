"""Attention among live rows: equal to the padded form on live rows, and that form where the mask asks for more."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dendrofx.runtime.attention import AttentionPlan, attend_rows, plan_attention
from dendrofx.runtime.live import LiveRows, live_rows, pad_rows, unpad_rows
from tests.check import OTHER_GEMM
from tests.padded import ends

HEADS, FEATURES, TOKENS, SCALE, MOST = 3, 4, 6, 0.7, 8
LENGTHS = {"ragged": [6, 1, 3, 2], "full": [6, 6], "single": [4], "first empty": [0, 2, 3]}


def alive_of(lengths: list[int], left: bool = False, tokens: int = TOKENS) -> Tensor:
    return ends(lengths, tokens, left)


def keys(alive: Tensor) -> Tensor:
    return alive[:, None, None, :]


def causal(alive: Tensor) -> Tensor:
    """Each row sees those before it, and itself also where it is dead: HF's mask of left padded batches."""
    n = alive.size(1)
    return (keys(alive) & torch.ones(n, n, dtype=torch.bool).tril()) | torch.eye(n, dtype=torch.bool)


def window(alive: Tensor) -> Tensor:
    place = torch.arange(alive.size(1))
    return keys(alive) & ((place[:, None] - place).abs() <= 1)


def per_head(alive: Tensor) -> Tensor:
    """One head sees all, one the past, one a window."""
    return torch.cat([(keys(alive) | causal(alive)) & keys(alive), causal(alive) & keys(alive), window(alive)], 1)


def additive(low: float) -> Callable[[Tensor], Tensor]:
    return lambda seen: torch.where(seen, 0.0, low)


def alibi(seen: Tensor) -> Tensor:
    """Another bias in every head."""
    place = torch.arange(seen.size(3))
    bias = -(place[:, None] - place).abs() * torch.tensor([1.0, 0.5, 0.25])[:, None, None]
    return torch.where(seen, bias, -torch.inf)


SEEN = {"keys": keys, "causal": causal, "window": window, "per head": per_head}
AS = {"bool": lambda seen: seen, "inf": additive(-torch.inf), "min": additive(-3.4e38), "alibi": alibi}


def as_it_is(function: Any) -> Any:
    return function


@pytest.fixture(params=["eager", "scripted"])
def ready(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    return torch.jit.script if request.param == "scripted" else as_it_is


def heads(batch: int, tokens: int = TOKENS) -> list[Tensor]:
    return [torch.randn(batch, HEADS, tokens, FEATURES) for _ in range(3)]


def attended(
    ready: Callable[[Any], Any], qkv: list[Tensor], mask: Tensor, rows: LiveRows, most: int = MOST
) -> tuple[AttentionPlan, Tensor]:
    """The plan, and the result among live rows put back."""
    plan = ready(plan_attention)(mask, rows, most)
    live = ready(attend_rows)(*(unpad_rows(x, rows, 0, 2) for x in qkv), plan, SCALE, mask.dtype != torch.bool)
    assert live.isfinite().all()  # also behind the live rows
    assert plan.forms[0].blank or not live[:, :, rows.live :].any()
    return plan, pad_rows(live, rows, 0, 2)


def assert_equal_on(alive: Tensor, got: Tensor, wanted: Tensor, **tolerance: float) -> None:
    given = tolerance or OTHER_GEMM
    torch.testing.assert_close(got.transpose(1, 2)[alive], wanted.transpose(1, 2)[alive], **given)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    st.sampled_from(sorted(SEEN)),
    st.sampled_from(sorted(AS)),
    st.lists(st.integers(0, TOKENS), min_size=1, max_size=5),
    st.booleans(),
    st.integers(1, 3 * TOKENS),
    st.booleans(),
)
def test_equal_to_the_padded_form(
    dtype: torch.dtype, seen: str, form: str, lengths: list[int], left: bool, most: int, scripted: bool
) -> None:
    """Of any type, with a mask of another type too, which torch's own op does not take; in chunks of any size."""
    alive, ready = alive_of(lengths, left), torch.jit.script if scripted else as_it_is
    mask, qkv = AS[form](SEEN[seen](alive)), [x.to(dtype) for x in heads(len(alive))]
    plan, got = attended(ready, qkv, mask, live_rows(alive, False), most)
    assert not plan.forms[0].blank or 0 in lengths
    assert got.dtype == dtype
    wide = mask if mask.dtype == torch.bool else mask.double()
    wanted = F.scaled_dot_product_attention(*(x.double() for x in qkv), wide, scale=SCALE)
    allowed = 4 * torch.finfo(dtype).eps * float(wanted.transpose(1, 2)[alive].abs().max()) if alive.any() else 0.0
    assert_equal_on(alive, got.double(), wanted, rtol=0, atol=allowed)


@pytest.mark.parametrize("most", [1, 6, 100])
def test_equal_in_chunks_of_any_size(most: int) -> None:
    alive = alive_of(LENGTHS["ragged"])
    qkv, mask = heads(4), additive(-1e30)(keys(alive))
    plan, got = attended(as_it_is, qkv, mask, live_rows(alive, False), most)
    assert (plan.forms[0].chunks, plan.forms[0].sizes) == {1: ([3, 1], [6, 1]), 6: ([2], [6]), 100: ([1], [12])}[most]
    assert_equal_on(alive, got, F.scaled_dot_product_attention(*qkv, mask, scale=SCALE))


@pytest.mark.parametrize("form", ["inf", "alibi"])
def test_long_samples(ready: Callable[[Any], Any], form: str) -> None:
    """Longer than a chunk of several."""
    alive = alive_of([270, 20, 261], tokens=270)
    qkv, mask = heads(3, 270), AS[form](keys(alive))
    plan, got = attended(ready, qkv, mask, live_rows(alive, False))
    assert not plan.forms[0].blank
    assert_equal_on(alive, got, F.scaled_dot_product_attention(*qkv, mask, scale=SCALE))


def all_keys(alive: Tensor) -> Tensor:
    return torch.ones(1, 1, 1, alive.size(1), dtype=torch.bool)


def one_dead_key(alive: Tensor) -> Tensor:
    seen = keys(alive).expand(-1, HEADS, TOKENS, -1).clone()
    seen[2, 1, 0, 5] = True  # row 0 is live, row 5 dead
    return seen


def one_blind_row(alive: Tensor) -> Tensor:
    seen = keys(alive).expand(-1, 1, TOKENS, -1).clone()
    seen[2, 0, 1] = False
    return seen


def weakly(seen: Tensor) -> Tensor:
    """What is masked keeps a little weight."""
    return torch.where(seen, 0.0, -20.0)


@pytest.mark.parametrize(
    ("seen", "form"),
    [(all_keys, "bool"), (one_dead_key, "bool"), (one_dead_key, "min"), (one_blind_row, "min"), (keys, weakly)],
    ids=["all keys", "one dead key", "one dead key, additive", "a row that sees nothing", "weak mask"],
)
def test_padded_form_where_live_rows_see_more_or_nothing(
    ready: Callable[[Any], Any], seen: Callable[[Tensor], Tensor], form: Any
) -> None:
    alive = alive_of(LENGTHS["ragged"])
    mask = (form if callable(form) else AS[form])(seen(alive))
    qkv, rows = heads(4), live_rows(alive, False)
    plan, got = attended(ready, qkv, mask, rows)
    assert [form.blank for form in plan.forms] == [True]
    zeroed = [pad_rows(unpad_rows(x, rows, 0, 2), rows, 0, 2) for x in qkv]
    assert_equal_on(alive, got, F.scaled_dot_product_attention(*zeroed, mask, scale=SCALE))


def test_a_sample_without_live_rows_is_computed_as_it_was(ready: Callable[[Any], Any]) -> None:
    """All of its rows count, and see the same of one another as ever."""
    alive = alive_of(LENGTHS["first empty"])
    qkv, mask = heads(3), additive(-1e30)(keys(alive))
    plan, got = attended(ready, qkv, mask, live_rows(alive, False))
    assert plan.forms[0].blank
    wanted = F.scaled_dot_product_attention(*qkv, mask, scale=SCALE)
    torch.testing.assert_close(got[0], wanted[0], **OTHER_GEMM)
    assert_equal_on(alive, got, wanted)


@pytest.mark.parametrize("low", [-1e4, -1e9])
def test_scores_that_a_mask_does_not_outweigh_are_refused(ready: Callable[[Any], Any], low: float) -> None:
    """What dead rows hold is never computed, so nothing tells how much of it such a mask lets through."""
    alive = alive_of(LENGTHS["ragged"])
    mask, (q, k, v), rows = additive(low)(keys(alive)), heads(4), live_rows(alive, False)
    longest = q.norm(dim=-1).max() * k.norm(dim=-1).max() * SCALE
    small, large = (float((reach / longest).sqrt()) for reach in (-low / 50, -low))
    plan, got = attended(ready, [small * q, small * k, v], mask, rows)
    assert plan.floor == low
    assert_equal_on(alive, got, F.scaled_dot_product_attention(small * q, small * k, v, mask, scale=SCALE))
    with pytest.raises(Exception, match=r"attention scores may reach [\d.e+]+, beside which the mask's -1"):
        attended(ready, [large * q, large * k, v], mask, rows)
    attended(ready, [large * q, large * k, v], AS["min"](keys(alive)), rows)


@pytest.mark.parametrize("lengths", [[5, 5, 5], [7], [0, 4, 4]])
def test_samples_of_one_length_are_neither_moved_nor_masked(lengths: list[int]) -> None:
    alive = alive_of(lengths)
    alive[0] |= not alive[0].any()
    qkv, mask = heads(len(lengths)), keys(alive)
    plan, got = attended(as_it_is, qkv, mask, live_rows(alive, False))
    assert (plan.forms[0].index.numel() == 0) == (len({int(n) for n in alive.sum(1)}) == 1)
    assert all(b.numel() == 0 for b in plan.forms[0].biases) == (plan.forms[0].index.numel() == 0)
    assert_equal_on(alive, got, F.scaled_dot_product_attention(*qkv, mask, scale=SCALE))


@pytest.mark.parametrize("batch", [0, 1])
def test_no_samples_and_one_token(ready: Callable[[Any], Any], batch: int) -> None:
    qkv, alive = heads(batch, 1), torch.ones(batch, 1, dtype=torch.bool)
    plan, got = attended(ready, qkv, keys(alive), live_rows(alive, False))
    assert not plan.forms[0].blank
    torch.testing.assert_close(got, qkv[2], **OTHER_GEMM)


def changed(qkv: list[Tensor], sample: int, value: Tensor) -> list[Tensor]:
    return [torch.where((torch.arange(x.size(0)) == sample)[:, None, None, None], value, x) for x in qkv]


def test_no_sample_depends_on_another() -> None:
    """Two by two they share a chunk; when one changes, the others' bits must stay."""
    alive = alive_of(LENGTHS["ragged"])
    qkv, mask, rows = heads(4), additive(-1e30)(keys(alive)), live_rows(alive, False)
    plan, before = attended(as_it_is, qkv, mask, rows)
    assert (plan.forms[0].chunks, plan.forms[0].sizes) == ([2], [7])
    after = attended(as_it_is, changed(qkv, 2, 50 * torch.randn(4, HEADS, TOKENS, FEATURES)), mask, rows)[1]
    others = [0, 1, 3]
    assert torch.equal(before[others], after[others])
    assert not torch.equal(before[2], after[2])


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("sees", SEEN)
def test_what_is_not_finite_stays_in_its_sample(ready: Callable[[Any], Any], sees: str, value: float) -> None:
    alive = alive_of(LENGTHS["ragged"])
    qkv, mask, rows = heads(4), additive(-1e30)(SEEN[sees](alive)), live_rows(alive, False)
    before = attended(ready, qkv, mask, rows)[1]
    plan = plan_attention(mask, rows, MOST)
    assert any(size > length for size in plan.forms[0].sizes for length in rows.lengths), "samples share a chunk"
    parts = [unpad_rows(x, rows, 0, 2) for x in changed(qkv, 2, torch.tensor(value))]
    after = pad_rows(ready(attend_rows)(*parts, plan, SCALE, mask.dtype != torch.bool), rows, 0, 2)
    others = [0, 1, 3]
    assert torch.allclose(before[others], after[others], rtol=0, atol=1e-6)  # sums of one chunk or several
    assert not after[2].isfinite().all()
