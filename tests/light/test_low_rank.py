"""Low-rank light branches against float64 references: what each basis promises, and what stays dense."""

from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from dendrofx.errors import InputError
from dendrofx.graph.block import row_macs
from dendrofx.light import LowRank
from dendrofx.runtime.branches import DenseLinear, LightChain, LowRankLinear, ObservedChain

Basis = Literal["weight", "input", "whitened"]
BASES: tuple[Basis, ...] = ("weight", "input", "whitened")
FACTORS: dict[str, Any] = {"rtol": 0.0, "atol": 2e-6}  # float32 factors of entries of size 1 against float64
OTHER_GEMM: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}  # another order of summation


def skewed_rows(n: int, width: int) -> Tensor:
    """Rows whose directions matter very differently, and not in the order of the weight's."""
    return torch.randn(n, width) * torch.logspace(0, -3, width) @ torch.linalg.qr(torch.randn(width, width)).Q


def layer_of(light: nn.Module, index: int = 0) -> LowRankLinear:
    assert isinstance(light, LightChain | ObservedChain)
    layer = light.layers[index]
    assert isinstance(layer, LowRankLinear)
    return layer


def product(light: nn.Module, index: int = 0) -> Tensor:
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


@pytest.mark.parametrize("basis", ["weight", "input"])
def test_codes_are_orthogonal_projections(basis: Basis) -> None:
    light = LowRank(6, basis).fit(nn.Linear(40, 30), skewed_rows(100, 40))
    code = layer_of(light).code.double()
    torch.testing.assert_close(code @ code.t(), torch.eye(6, dtype=torch.float64), **FACTORS)
    assert isinstance(light, ObservedChain)


def test_codes_are_orthonormal_for_rows_of_lower_rank_too() -> None:
    rows = torch.randn(50, 2) @ torch.randn(2, 40)
    code = layer_of(LowRank(6, "input").fit(nn.Linear(40, 30), rows)).code.double()
    torch.testing.assert_close(code @ code.t(), torch.eye(6, dtype=torch.float64), **FACTORS)


def test_whitened_offers_no_evidence() -> None:
    light = LowRank(6, "whitened").fit(nn.Linear(40, 30), skewed_rows(100, 40))
    assert type(light) is LightChain  # no ObservedChain


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


@pytest.mark.parametrize("rank", [8, 9, 16, 100])
def test_a_linear_for_which_the_rank_saves_nothing_stays(rank: int) -> None:
    linear, x = nn.Linear(16, 16), torch.randn(9, 16)  # rank 8: 8 (16 + 16) = 16 x 16 multiply-adds
    light = LowRank(rank).fit(linear)
    assert isinstance(light, ObservedChain)
    kept = light.layers[0]
    assert isinstance(kept, DenseLinear)
    assert kept.weight.data_ptr() == linear.weight.data_ptr()
    assert torch.equal(light(x), linear(x))


def test_one_rank_less_is_factored_and_counted() -> None:
    light = LowRank(7).fit(nn.Linear(16, 16))
    assert row_macs(light) == row_macs(layer_of(light)) == 7 * (16 + 16)
    assert repr(layer_of(light)) == "LowRankLinear(16 -> 7 -> 16)"


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


def test_observe_gives_the_output_and_the_norms() -> None:
    block, x = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 2)), torch.randn(7, 20)
    light = LowRank(3).fit(block)  # the second Linear stays dense
    out, norms = light.observe(x)  # type: ignore[operator]
    assert torch.equal(out, light(x))
    assert isinstance(light, ObservedChain)
    hidden = torch.relu(light.layers[0](x)).norm(dim=1)
    code = (x @ layer_of(light).code.t()).norm(dim=1)
    torch.testing.assert_close(norms, torch.stack([x.norm(dim=1), code, hidden, hidden], 1))


def test_the_branch_is_in_eval_mode_and_without_gradients() -> None:
    light = LowRank(3).fit(nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 8)))
    assert not light(torch.randn(2, 20)).requires_grad
    assert not light.training


@pytest.mark.parametrize(("rank", "basis", "message"), [
    (0, "weight", "rank must be >= 1, got 0"),
    (-3, "weight", "rank must be >= 1, got -3"),
    (2, "pca", "basis must be 'weight', 'input' or 'whitened', got 'pca'"),
])  # fmt: skip
def test_a_form_that_cannot_be(rank: int, basis: Basis, message: str) -> None:
    with pytest.raises(InputError) as error:
        LowRank(rank, basis)
    assert str(error.value) == message


@pytest.mark.parametrize("basis", ["input", "whitened"])
def test_missing_rows(basis: Basis) -> None:
    with pytest.raises(InputError) as error:
        LowRank(2, basis).fit(nn.Linear(16, 16))
    form = f"LowRank(rank=2, basis='{basis}')"
    assert str(error.value) == f"{form} is fitted on calibration rows: pass calibration=rows, shaped (N, 16)"


@pytest.mark.parametrize("shape", [(5, 7), (0, 16), (16,), (2, 3, 16)])
@pytest.mark.parametrize("basis", BASES)
def test_rows_that_do_not_fit(shape: tuple[int, ...], basis: Basis) -> None:
    with pytest.raises(InputError) as error:
        LowRank(2, basis).fit(nn.Linear(16, 16), torch.zeros(shape))
    form = f"LowRank(rank=2, basis='{basis}')"
    assert str(error.value) == f"calibration rows are shaped {shape}; {form} takes (N >= 1, 16)"


NOT_CHAINS = [
    nn.ReLU(),
    nn.Sequential(),
    nn.Sequential(nn.Linear(4, 4), nn.ReLU()),
    nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)),
    nn.Sequential(nn.ReLU(), nn.Linear(4, 4), nn.ReLU()),
]


@pytest.mark.parametrize("module", NOT_CHAINS, ids=lambda m: f"{type(m).__name__}{len(list(m.children()))}")
def test_not_a_chain(module: nn.Module) -> None:
    with pytest.raises(InputError) as error:
        LowRank(2).fit(module)
    expected = "a light form is fitted to an nn.Linear or a chain Linear (activation Linear)*, got "
    assert str(error.value) == expected + str(module)
