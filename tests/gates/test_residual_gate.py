"""The residual gate's claim: its score is never below the true relative error, whatever the block and the row."""

from itertools import pairwise
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dendrofx.gates import ResidualGate, SiteRows
from dendrofx.graph.block import BlockData
from dendrofx.light import LightForm, LowRank
from dendrofx.runtime.scores import UNJUDGED, LightRows
from tests.models import compressible
from tests.rungs import exact

ACTIVATIONS = [nn.ReLU(), nn.Tanh(), nn.GELU(), nn.GELU(approximate="tanh"), nn.SiLU(), nn.Hardswish()]
WEIGHTS = ["uniform", "equal", "nearly low rank", "steep", "saturating"]
ROUND = 1 + 1e-6  # the score is recovered from float32 here


def linear(fan_in: int, fan_out: int, bias: bool, kind: str) -> nn.Linear:
    """A Linear with weights of one of the kinds that strain the bound."""
    layer = nn.Linear(fan_in, fan_out, bias)
    with torch.no_grad():
        if kind == "equal":
            layer.weight.fill_(0.1)
        if kind == "nearly low rank":
            low = torch.randn(fan_out, 1) @ torch.randn(1, fan_in)
            layer.weight.copy_(low + 1e-4 * torch.randn(fan_out, fan_in))
        if kind == "steep":
            layer.weight.mul_(torch.logspace(3, -3, fan_in))
        if kind == "saturating" and bias:
            layer.bias.fill_(-5.0)  # the tail of GELU, SiLU and Tanh, where rounding is large beside the value
    return layer


@st.composite
def blocks(draw: st.DrawFn) -> nn.Sequential:
    """A chain of one to three Linears."""
    torch.manual_seed(draw(st.integers(0, 10**6)))
    widths = draw(st.lists(st.integers(1, 48), min_size=2, max_size=4))
    bias, kind = draw(st.booleans()), draw(st.sampled_from(WEIGHTS))
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [linear(fan_in, fan_out, bias, kind), draw(st.sampled_from(ACTIVATIONS))]
    return nn.Sequential(*layers[:-1])


def adversarial_rows(light: nn.Module, width: int) -> Tensor:
    """Rows that are easy, hard, or numerically unpleasant for the first Linear's code."""
    x = torch.randn(4, width)
    code = getattr(light.layers[0], "code", torch.eye(width))  # type: ignore[index]
    inside = x @ code.t() @ code
    peak = x.clone()
    peak[:, width // 2] = 1e6
    equal = torch.tensor([[0.1], [1.0], [-3.0], [1e4]]).expand(4, width)
    parts = [x, inside, x - inside, inside + 1e-4 * x, torch.zeros(2, width), peak, equal]
    return torch.cat([*parts, x * 1e-40, x * 1e-25, x * 1e-18, x * 1e18, x * 1e25, x * 3e38])


def fitted(block: nn.Sequential, form: LightForm, rows: Tensor | None = None) -> tuple[nn.Module, nn.Module]:
    data = BlockData(block, rows)
    light = form.fit_data(data)
    return light, ResidualGate().fit(SiteRows(data, light))


def score(light: nn.Module, gate: nn.Module, x: Tensor) -> Tensor:
    found: Tensor = gate(x, LightRows(*light.observe(x)))  # type: ignore[operator]
    return found


def assert_sound(block: nn.Sequential, light: nn.Module, gate: nn.Module, x: Tensor) -> Tensor:
    """Score and bound are no less than the true error, for both truths; returns the scores."""
    out, evidence = light.observe(x)  # type: ignore[operator]
    given = score(light, gate, x)
    # the bound itself, from the score of an output so large that every row is judged
    size = 1e3 * (out.double().norm(dim=1).clamp(1e-10, 1e14) + 1)
    ample = gate(x, LightRows(size.float()[:, None], evidence)).double()
    bound = torch.where(ample < UNJUDGED, ample * size / (1 + ample) * ROUND, torch.inf)
    assert not bool((given < 0).any())
    for full in (block(x).double(), exact(block, x)):
        error = (out.double() - full).norm(dim=1)
        judged = given < UNJUDGED
        assert bool((given[judged] * ROUND >= (error / full.norm(dim=1))[judged]).all())
        finite = error.isfinite()
        assert bool((bound[finite] >= error[finite]).all())
    return given


@given(block=blocks(), rank=st.integers(1, 8), basis=st.sampled_from(["weight", "input"]), few=st.booleans())
@settings(max_examples=250, deadline=None, derandomize=True)
@torch.no_grad()
def test_no_row_is_worse_than_its_score_and_it_is_the_same_in_any_batch(
    block: nn.Sequential, rank: int, basis: Literal["weight", "input"], few: bool
) -> None:
    width = block[0].in_features
    seen = torch.randn(3 if few else 60, width) * torch.logspace(0, -4, width)
    light, gate = fitted(block, LowRank(rank, basis), seen)
    assert_sound(block, light, gate, adversarial_rows(light, width))
    together, *alone = (score(light, gate, rows) for rows in (seen[:8], *seen[:8].split(1)))
    one_by_one = torch.cat(alone)
    # the tolerances that calibration reaches; a score of 1 says "no better than guessing 0"
    used = (together < 1.0) & (one_by_one < 1.0)
    assert bool(((one_by_one - together).abs()[used] <= gate.margin * together[used]).all())


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("kind", WEIGHTS)
@torch.no_grad()
def test_sound_through_each_activation(activation: nn.Module, kind: str) -> None:
    block = nn.Sequential(linear(32, 64, True, kind), activation, linear(64, 16, True, kind))
    light, gate = fitted(block, LowRank(4))
    assert_sound(block, light, gate, adversarial_rows(light, 32))
    small = torch.randn(50, 32) * torch.logspace(-6, 2, 50)[:, None]
    assert_sound(block, light, gate, small)


@torch.no_grad()
def test_sound_where_the_error_is_all_rounding() -> None:
    """A weight of exact rank 1 and rows of equal entries: nothing is missed, and the sums round with a bias."""
    for width in (64, 1024, 4096):
        block = nn.Sequential(linear(width, 8, False, "equal"))
        light, gate = fitted(block, LowRank(1))
        rows = torch.tensor([[0.1], [0.3], [0.7], [1.1]]).expand(4, width).clone()
        assert bool((assert_sound(block, light, gate, rows) < 1e-3).all())


@torch.no_grad()
def test_the_bound_is_not_vacuous_and_an_exact_branch_scores_only_rounding() -> None:
    for block, rank in ((nn.Sequential(linear(64, 32, True, "nearly low rank")), 4), (compressible(), 8)):
        light, gate = fitted(block, LowRank(rank))
        assert float((assert_sound(block, light, gate, torch.randn(200, 64)) < 0.05).double().mean()) > 0.5
    block = nn.Sequential(nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 12))
    light, gate = fitted(block, LowRank(12))  # both Linears stay dense
    assert bool((assert_sound(block, light, gate, torch.randn(50, 12)) < 1e-4).all())


@torch.no_grad()
def test_the_score_follows_the_error() -> None:
    """Rows pushed out of the kept subspace get the higher score."""
    block = nn.Sequential(linear(32, 16, True, "steep"))
    light, gate = fitted(block, LowRank(4))
    code = light.layers[0].code  # type: ignore[union-attr, index]
    inside = torch.randn(20, 32) @ code.t() @ code
    outside = torch.randn(20, 32)
    outside -= outside @ code.t() @ code
    scores = [score(light, gate, x) for x in (inside, inside + 0.1 * outside, outside)]
    assert bool((scores[0] < scores[1]).all())
    assert bool((scores[1] < scores[2]).all())
