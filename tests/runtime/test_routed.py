"""Routed sites at run time: what must not change when rows, batches, routes and tolerances do."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dendrofx.gates import EnergyGate
from dendrofx.light import LowRank
from dendrofx.lowering.script import script
from tests.check import OTHER_GEMM
from tests.models import Mlp, Residual, Shared
from tests.runtime.routes import (
    PAIRS,
    Pair,
    calibration,
    every_pair,
    force_easy_only,
    judged_pairs,
    known,
    made,
    median,
    routed,
    sample,
    scores,
    set_all,
)

MODELS = [(m, p) for m in (Mlp, Residual, Shared) for p in PAIRS if m is Mlp or isinstance(p[0], LowRank)]


@pytest.mark.parametrize(("model", "pair"), MODELS, ids=str)
def test_tolerance_0_is_the_original(pair: Pair, model: type[nn.Module]) -> None:
    original = model()
    module = routed(original, pair, calibration())
    for x in (torch.randn(33, 16), torch.randn(1, 16), torch.randn(16), torch.randn(0, 16), torch.randn(2, 3, 5, 16)):
        assert torch.equal(module(x), original(x))


@judged_pairs
def test_tolerance_infinity_is_the_light_alone(pair: Pair) -> None:
    module = made(pair)
    set_all(module, math.inf)
    x = torch.randn(40, 16)
    light = module.routed.fc1_fc2.light.light
    torch.testing.assert_close(module(x), light(x), **OTHER_GEMM)


def test_every_site_of_a_larger_model_takes_its_light() -> None:
    module, x = routed(Residual(), (LowRank(3), EnergyGate()), calibration()), torch.randn(40, 16)
    set_all(module, math.inf)
    parts = module.routed
    stem, block, head = (getattr(parts, n).light.light for n in ("stem", "fc1_fc2", "head"))
    h = torch.relu(stem(x))
    torch.testing.assert_close(module(x), head(h + block(h)), **OTHER_GEMM)


@given(n=st.integers(1, 40), cut=st.integers(0, 40), seed=st.integers(0, 2))
@settings(max_examples=8, deadline=None, derandomize=True)
@every_pair
def test_rows_take_the_same_route_in_any_batch(pair: Pair, n: int, cut: int, seed: int) -> None:
    torch.manual_seed(seed)
    module = made(pair, seed)
    x, order = sample(n), torch.randperm(n)
    score, tolerance = scores(module, x), median(module, x)
    gate = module.routed.fc1_fc2.gate
    sure = (score - tolerance).abs() > 2 * gate.margin * tolerance
    sure |= score == 0  # the random gate's other score is infinity
    set_all(module, tolerance)
    whole = module(x)
    parts = torch.cat([module(x[:cut]), module(x[cut:])])
    permuted = torch.empty_like(whole)
    permuted[order] = module(x[order])
    torch.testing.assert_close(parts[sure], whole[sure], **OTHER_GEMM)
    torch.testing.assert_close(permuted[sure], whole[sure], **OTHER_GEMM)


@every_pair
def test_each_row_takes_the_branch_that_its_score_says(pair: Pair) -> None:
    original, module, x = known(pair)[0], made(pair), sample(60)
    tolerance = median(module, x)
    hard = ~(scores(module, x) < tolerance)
    assert 0 < int(hard.sum()) < 60
    set_all(module, tolerance)
    light = module.routed.fc1_fc2.light.light(x)
    expected = torch.where(hard[:, None], original(x).detach(), light)
    for share in (0.0, 2.0):
        force_easy_only(module, share)
        torch.testing.assert_close(module(x), expected, **OTHER_GEMM)


@every_pair
@pytest.mark.parametrize("shape", [(16,), (1, 16), (0, 16), (3, 0, 16), (4, 5, 16), (2, 3, 4, 16)])
def test_leading_dimensions_are_rows(pair: Pair, shape: tuple[int, ...]) -> None:
    module, x = made(pair), torch.randn(shape)
    for tolerance in (0.0, 0.3, math.inf):
        set_all(module, tolerance)
        assert module(x).shape == (*shape[:-1], 8)
        torch.testing.assert_close(module(x), module(x.reshape(-1, 16)).reshape(*shape[:-1], 8))
        counts = module.forward_counted(x)[1]["fc1..fc2"]
        assert counts["rows"] == math.prod(shape[:-1])


@every_pair
def test_the_layout_of_the_input_does_not_matter_and_it_is_not_written_to(pair: Pair) -> None:
    module, x = made(pair), torch.randn(16, 30).t()
    before = x.clone()
    for tolerance in (0.0, median(module, x), math.inf):
        set_all(module, tolerance)
        torch.testing.assert_close(module(x), module(x.contiguous()), rtol=1e-5, atol=4e-6)  # outputs around 10
        assert torch.equal(x, before)


@judged_pairs
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_rows_that_are_not_finite_get_what_the_original_gives(pair: Pair, bad: float) -> None:
    original, module, x = known(pair)[0], made(pair), torch.randn(20, 16)
    x[3], x[8, 2], x[19, 15] = bad, bad, bad
    rows, wanted = [3, 8, 19], original(x)
    clean = torch.tensor([i for i in range(20) if i not in rows])
    for tolerance in (0.0, 0.3, math.inf):
        set_all(module, tolerance)
        for share in (0.0, 2.0):
            force_easy_only(module, share)
            got, counts = module.forward_counted(x)
            torch.testing.assert_close(got[rows], wanted[rows], rtol=0.0, atol=0.0, equal_nan=True)
            assert counts["fc1..fc2"]["hard_rows"] >= 3
            torch.testing.assert_close(got[clean], module(x[clean]), **OTHER_GEMM)
    assert counts["fc1..fc2"]["hard_rows"] == 3


@pytest.mark.parametrize(("bad", "eager", "scripted"), [
    (torch.zeros(4, 7), "rows are shaped torch.Size([4, 7])", "rows are shaped [4, 7]"),
    (torch.tensor(1.0), "rows are shaped torch.Size([])", "rows are shaped []"),
    (torch.zeros(4, 16).double(), "rows are torch.float64", "rows are torch.float64"),
    (torch.zeros(4, 16).long(), "rows are torch.int64", "rows are torch.int64"),
], ids=["width", "no dimension", "float64", "int64"])  # fmt: skip
def test_rows_that_do_not_fit(bad: Tensor, eager: str, scripted: str) -> None:
    module = made(PAIRS[0])
    shape = "takes 16 features: pass [..., 16]"
    tail = f", site 'fc1..fc2' {shape if bad.dtype == torch.float32 else 'takes torch.float32: cast the input with .float()'}"
    with pytest.raises(RuntimeError) as error:
        module(bad)
    assert str(error.value) == eager + tail
    with pytest.raises(torch.jit.Error) as raised:
        script(module)(bad)
    assert str(raised.value).strip().endswith(f"RuntimeError: {scripted}{tail}")
