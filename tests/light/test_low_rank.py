"""Low-rank light branches against float64 references: what each basis promises, and what stays dense."""

from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from dendrofx.graph.block import row_macs
from dendrofx.light import LowRank
from dendrofx.runtime.branches import DenseLinear, LowRankLinear

Basis = Literal["weight", "input", "whitened"]
BASES: tuple[Basis, ...] = ("weight", "input", "whitened")
FACTORS: dict[str, Any] = {"rtol": 0.0, "atol": 2e-6}  # float32 factors of entries of size 1 against float64
OTHER_GEMM: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}  # another order of summation


def skewed_rows(n: int, width: int) -> Tensor:
    """Rows whose directions matter very differently, and not in the order of the weight's."""
    return torch.randn(n, width) * torch.logspace(0, -3, width) @ torch.linalg.qr(torch.randn(width, width)).Q


def layer_of(light: Any, index: int = 0) -> LowRankLinear:
    layer = light.layers[index]
    assert isinstance(layer, LowRankLinear)
    return layer


def product(light: Any, index: int = 0) -> Tensor:
    layer = layer_of(light, index)
    return layer.decode.double() @ layer.code.double()


def squared_error(light: nn.Module, linear: nn.Linear, rows: Tensor) -> float:
    """Mean squared output error, from the factors as stored."""
    residual = linear.weight.detach().double() - product(light)
    return float((rows.double() @ residual.t()).square().sum(1).mean())


@pytest.mark.parametrize("shape", [(24, 24), (12, 40), (40, 12)])
@pytest.mark.parametrize("rank", [1, 3, 7])
def test_weight_basis_is_the_best_approximation_of_the_weight(shape: tuple[int, int], rank: int) -> None:
    linear = nn.Linear(*shape)
    weight = linear.weight.detach().double()
    u, s, v = torch.linalg.svd(weight, full_matrices=False)
    got = product(LowRank(rank).fit(linear))
    torch.testing.assert_close(got, u[:, :rank] * s[:rank] @ v[:rank], **FACTORS)
    assert float(torch.linalg.matrix_norm(weight - got, 2)) == pytest.approx(float(s[rank]), rel=1e-5)
    assert float(torch.linalg.matrix_norm(weight - got)) == pytest.approx(float(s[rank:].norm()), rel=1e-5)


@pytest.mark.parametrize("n", [200, 10])
def test_input_basis_projects_on_the_principal_directions_of_the_rows(n: int) -> None:
    linear, rows = nn.Linear(24, 20), skewed_rows(n, 24)
    kept = torch.linalg.svd(rows.double(), full_matrices=False).Vh[:4]
    got = product(LowRank(4, "input").fit(linear, rows))
    torch.testing.assert_close(got, linear.weight.detach().double() @ kept.t() @ kept, rtol=0.0, atol=2e-5)


@pytest.mark.parametrize("rank", [1, 4])
def test_whitened_leaves_the_least_output_error_that_any_rank_can(rank: int) -> None:
    linear, rows = nn.Linear(24, 20), skewed_rows(300, 24)
    outputs = rows.double() @ linear.weight.detach().double().t()
    least = float(torch.linalg.svdvals(outputs)[rank:].square().sum() / len(rows))
    errors = {basis: squared_error(LowRank(rank, basis).fit(linear, rows), linear, rows) for basis in BASES}
    assert errors["whitened"] == pytest.approx(least, rel=1e-4)
    assert errors["whitened"] < 0.99 * min(errors["weight"], errors["input"])
    assert errors["input"] < errors["weight"]


@pytest.mark.parametrize(("basis", "directions"), [("weight", 40), ("input", 40), ("input", 2)])
def test_codes_are_orthogonal_projections(basis: Basis, directions: int) -> None:
    rows = skewed_rows(100, 40) if directions == 40 else torch.randn(50, directions) @ torch.randn(directions, 40)
    code = layer_of(LowRank(6, basis).fit(nn.Linear(40, 30), rows)).code.double()
    torch.testing.assert_close(code @ code.t(), torch.eye(6, dtype=torch.float64), **FACTORS)


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("bias", [True, False])
def test_the_rank_of_the_weight_gives_the_linear(basis: Basis, bias: bool) -> None:
    linear, rows = nn.Linear(32, 24, bias=bias), torch.randn(64, 32)
    with torch.no_grad():
        linear.weight.copy_(torch.randn(24, 5) @ torch.randn(5, 32) / 10)
    if basis == "input":
        rows = torch.randn(64, 5) @ torch.randn(5, 32) / 5
    light = LowRank(5, basis).fit(linear, rows)
    assert (layer_of(light).bias is None) == (not bias)
    torch.testing.assert_close(light(rows), linear(rows).detach(), **OTHER_GEMM)


@pytest.mark.parametrize("rank", [7, 8, 9, 16, 100])
def test_a_linear_for_which_the_rank_saves_nothing_stays(rank: int) -> None:
    linear, x = nn.Linear(16, 16), torch.randn(9, 16)  # rank 8: 8 (16 + 16) = 16 x 16 multiply-adds
    light: Any = LowRank(rank).fit(linear)
    if rank < 8:
        assert row_macs(light) == row_macs(layer_of(light)) == 7 * (16 + 16)
        return
    assert isinstance(light.layers[0], DenseLinear)
    assert light.layers[0].weight.data_ptr() == linear.weight.data_ptr()
    assert torch.equal(light(x), linear(x))


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("bias", [True, False])
def test_a_chain_is_factored_linear_by_linear(basis: Basis, bias: bool) -> None:
    block = nn.Sequential(nn.Linear(20, 30, bias), nn.Tanh(), nn.Linear(30, 4, bias), nn.ReLU(), nn.Linear(4, 26, bias))
    rows = torch.randn(80, 20)
    light = LowRank(3, basis).fit(block, rows)
    x = rows.double()
    for i, layer in enumerate(block):
        x = x @ product(light, i // 2).t() if isinstance(layer, nn.Linear) else layer(x)
        x = x + layer.bias.detach().double() if isinstance(layer, nn.Linear) and bias else x
    torch.testing.assert_close(light(rows).double(), x, **OTHER_GEMM)
    inner = LowRank(3, basis).fit(block[2], block[:2](rows).detach())  # the second Linear sees the first one's rows
    torch.testing.assert_close(product(light, 1), product(inner), **FACTORS)
