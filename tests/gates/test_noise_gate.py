"""The noise gate's claim: on outputs of a hundred features or more no row is worse than its score, nor far better."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dendrofx.gates import NoiseGate, SiteRows
from dendrofx.graph.block import BlockData
from dendrofx.light import BFloat16, Int8, LightForm, Precision
from dendrofx.runtime.fused_int8 import FusedInt8Linear
from dendrofx.runtime.int8 import Int8Linear
from dendrofx.runtime.scores import UNJUDGED, LightRows
from tests.rungs import exact, needs_fbgemm, relative, rungs

FORMS = rungs(Int8(), Int8(weight_bits=7), Int8(smooth=0.5), BFloat16(), BFloat16(packed=True))
FLOAT32 = 1e-6  # what a float32 block is off by itself, which no score counts
Fitted = tuple[nn.Module, nn.Module]

BLOCKS: dict[str, Callable[[], list[nn.Module]]] = {
    "one": lambda: [nn.Linear(256, 512)],
    "wide": lambda: [nn.Linear(3072, 128)],
    "no bias": lambda: [nn.Linear(256, 512, False)],
    "relu": lambda: [nn.Linear(128, 512), nn.ReLU(), nn.Linear(512, 128)],
    "gelu": lambda: [nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 128)],
    "three": lambda: [nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.GELU(), nn.Linear(128, 128)],
}


def huge(x: Tensor) -> Tensor:
    return torch.cat([torch.full_like(x[:, :1], 1e4), x[:, 1:]], 1)


def half_way(x: Tensor) -> Tensor:
    """Every entry half a step from a whole one, the worst that rounding can do."""
    signs = torch.cat([torch.ones_like(x[:2]), x[2:].sign()])
    return torch.cat([torch.full_like(x[:, :1], 127.0), 63.5 * signs[:, 1:]], 1)


ROWS: dict[str, Callable[[Tensor], Tensor]] = {
    "gaussian": lambda x: x,
    "one huge entry": huge,
    "one entry only": lambda x: torch.diag_embed(torch.ones(x.size(1)))[: len(x)],
    "all equal": lambda x: x[:, :1].expand_as(x).clone(),
    "half-way": half_way,
    "heavy-tailed": lambda x: torch.distributions.StudentT(torch.tensor(1.5)).sample(tuple(x.shape)),
    "log-normal": lambda x: (2 * x).exp(),
    "of many sizes": lambda x: x * torch.logspace(-6, 6, len(x))[:, None],
    "small": lambda x: x * 1e-20,
    "denormal": lambda x: x * 1e-40,
    "zero": torch.zeros_like,
}


def fitted(form: LightForm, block: nn.Sequential) -> Fitted:
    data = BlockData(block.requires_grad_(False), torch.randn(300, block[0].in_features))
    light = form.fit_data(data)
    return light, NoiseGate().fit(SiteRows(data, light))


def score_of(pair: Fitted, x: Tensor) -> Tensor:
    light, gate = pair
    score: Tensor = gate(x, LightRows(*light.observe(x)))  # type: ignore[operator]
    assert score.shape == (len(x),)
    assert not bool((score < 0).any())
    return score


def true_error(pair: Fitted, block: nn.Sequential, x: Tensor) -> Tensor:
    return relative(pair[0](x), exact(block, x))


def assert_covered(form: LightForm, block: nn.Sequential, x: Tensor) -> Tensor:
    pair = fitted(form, block)
    score = score_of(pair, x)
    assert bool((score >= true_error(pair, block, x) - FLOAT32).all())
    return score


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("chain", BLOCKS)
def test_no_row_is_worse_than_its_score(form: Precision, kind: str, chain: str) -> None:
    block = nn.Sequential(*BLOCKS[chain]())
    score = assert_covered(form, block, ROWS[kind](torch.randn(64, block[0].in_features)))
    if chain != "no bias" or kind not in ("zero", "denormal"):  # whose output is nothing
        assert bool((score < UNJUDGED).all())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("chain", BLOCKS)
def test_the_score_is_not_idle_the_same_in_any_batch_and_infinite_where_rows_are_too_large(
    form: Precision, chain: str
) -> None:
    block = nn.Sequential(*BLOCKS[chain]())
    pair, x = fitted(form, block), torch.randn(300, block[0].in_features)
    x[9] *= 1e5
    together = score_of(pair, x)
    ratio = together.double() / true_error(pair, block, x)
    assert 1.5 < float(ratio.median()) < 10
    for some in (torch.arange(20), torch.randperm(300)):
        again = torch.cat([score_of(pair, r) for r in x[some].split(1 if len(some) == 20 else 300)])
        assert bool(((again - together[some]).abs() <= pair[1].margin * together[some]).all())
    x[2], x[5, 3] = 1e38, 1e38
    assert score_of(pair, x[:9]).isinf().tolist() == [i in (2, 5) for i in range(9)]


@pytest.mark.parametrize("form", FORMS)
@given(
    fan_in=st.integers(8, 200),
    fan_out=st.integers(100, 250),
    hidden=st.sampled_from([0, 64, 150]),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    bias=st.booleans(),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=60, deadline=None, derandomize=True)
@torch.no_grad()
def test_covered_whatever_the_shape_and_scale(
    form: Precision, fan_in: int, fan_out: int, hidden: int, scale: float, bias: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    widths = [fan_in, hidden, fan_out] if hidden else [fan_in, fan_out]
    linears = [nn.Linear(a, b, bias) for a, b in pairwise(widths)]
    layers: list[nn.Module] = [linears[0], *(m for linear in linears[1:] for m in (nn.ReLU(), linear))]
    assert_covered(form, nn.Sequential(*layers), torch.randn(20, fan_in) * scale)


@pytest.mark.parametrize("form", rungs(Int8(weight_bits=7), BFloat16()))
def test_a_score_grows_with_the_crest_for_integers_alone(form: Precision) -> None:
    block = nn.Sequential(nn.Linear(256, 128, False))
    pair, x = fitted(form, block), torch.randn(50, 256)
    peaked = torch.cat([12 * x[:, :1].sign(), x[:, 1:]], 1)
    more = float((score_of(pair, peaked) / score_of(pair, x)).median())
    assert more > 1.5 if isinstance(form, Int8) else 0.8 < more < 1.1


@pytest.mark.parametrize("form", rungs(Int8(), Int8(weight_bits=7)))
def test_it_is_an_estimate_errors_along_one_direction_exceed_it(form: Precision) -> None:
    """As its docstring says: equal weights add up errors of one sign, which the model takes for independent."""
    block = nn.Sequential(nn.Linear(256, 128, False))
    block[0].weight.data.fill_(0.1)
    pair, x = fitted(form, block), half_way(torch.ones(3, 256))
    assert bool((true_error(pair, block, x) > score_of(pair, x)).all())


@needs_fbgemm
def test_the_terms_are_those_of_the_function_whichever_kernel_computes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    block, form = nn.Sequential(*BLOCKS["gelu"]()), Int8(weight_bits=7, smooth=0.5)
    terms = []
    for kernel in (FusedInt8Linear, Int8Linear):
        monkeypatch.setattr(Int8, "_kernel", lambda form, kernel=kernel: kernel)
        torch.manual_seed(0)
        light, gate = fitted(form, block)
        assert {type(m) for m in light.get_submodule("layers").children()} == {kernel}
        terms.append(gate.get_buffer("terms"))
    torch.testing.assert_close(*terms, rtol=1e-6, atol=0.0)
