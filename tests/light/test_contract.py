"""What every light form promises, as tables of forms and properties; `tests/search/test_rungs.py` has those of odd rows."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dendrofx.graph.block import row_cost, row_macs
from dendrofx.light import BFloat16, Int8, LightForm, LowRank, Precision, Prepacked, Pruned
from dendrofx.runtime.branches import (
    DenseLinear,
    Int8Chain,
    Int8Pair,
    LightChain,
    LinearPair,
    LowRankLinear,
    ObservedChain,
    ObservedInt8Chain,
    PackedChain,
)
from dendrofx.runtime.int8 import Int8Layer
from dendrofx.runtime.kernels import BFloat16Linear
from dendrofx.runtime.packed import PackedLinear
from tests.rungs import exact, refusal, relative, rungs

SEVEN, PACKED = Int8(weight_bits=7), BFloat16(packed=True)
ROUNDED = 2 * 2.0**-8  # two halves of a step of 8 significant bits: an entry may tip over


def chain(*widths: int) -> nn.Sequential:
    """Linears of these widths with ReLUs between them."""
    linears = [nn.Linear(a, b) for a, b in pairwise(widths)]
    return nn.Sequential(*[m for linear in linears for m in (linear, nn.ReLU())][:-1]).requires_grad_(False)


# ------------------------------------------------------------------------------------------- what is made, and its cost

MADE: list[tuple[LightForm, type[nn.Module], type[nn.Module], str, tuple[int, int, int, int]]] = [
    # a form, its chain and its first layer; multiply-adds of a row, their work, and both of a row of padding
    (Int8(), ObservedInt8Chain, Int8Layer, "Int8Linear(10 -> 33, int8)", (495, 83 + 42, 0, 0)),
    (SEVEN, ObservedInt8Chain, Int8Layer, "Int8Linear(10 -> 33, int8)", (495, 83 + 42, 0, 0)),
    (BFloat16(), ObservedChain, BFloat16Linear, "BFloat16Linear(10 -> 33, bfloat16)", (495, 248, 495, 248)),
    (PACKED, ObservedChain, PackedLinear, "PackedLinear(10 -> 33, bfloat16, packed)", (495, 248, 495, 248)),
    (Prepacked(), PackedChain, PackedLinear, "PackedLinear(10 -> 33, float32, packed)", (495, 495, 495, 495)),
    # the second Linear stays: 5 * 38 is more than 165
    (LowRank(5), ObservedChain, LowRankLinear, "LowRankLinear(10 -> 5 -> 33)", (380, 380, 0, 0)),
    (LowRank(5, "input"), ObservedChain, LowRankLinear, "LowRankLinear(10 -> 5 -> 33)", (380, 380, 0, 0)),
    (LowRank(5, "whitened"), LightChain, LowRankLinear, "LowRankLinear(10 -> 5 -> 33)", (380, 380, 0, 0)),
    (LowRank(5, precision=SEVEN), Int8Chain, Int8Pair, "Int8Linear(10 -> 5, int8)", (380, 13 + 42 + 42, 0, 0)),
    (LowRank(5, precision=Prepacked()), LightChain, LinearPair, "(10 -> 5, float32, packed)", (380, 380, 380, 380)),
    (LowRank(5, precision=BFloat16()), LightChain, LinearPair, "(10 -> 5, bfloat16)", (380, 191, 380, 191)),
    (LowRank(5, precision=PACKED), LightChain, LinearPair, "(10 -> 5, bfloat16, packed)", (380, 191, 380, 191)),
    (Pruned(1.0), LightChain, DenseLinear, "DenseLinear(10 -> 32)", (480, 480, 0, 0)),
    (Pruned(1.0, precision=SEVEN), Int8Chain, Int8Layer, "Int8Linear(10 -> 32, int8)", (480, 80 + 40, 0, 0)),
]


@pytest.mark.parametrize(("form", "kind", "layer", "text", "cost"), rungs(*MADE))
def test_the_branch(form: LightForm, kind: Any, layer: Any, text: str, cost: tuple[int, int, int, int]) -> None:
    block, rows = chain(10, 33, 5), torch.randn(90, 10)
    block[0].bias[20] = -1e4  # a unit that never fires
    before = [type(m) for m in block]
    light: Any = form.fit(block, rows)
    assert type(light) is kind
    assert isinstance(light.layers[0], layer)
    assert text in repr(light.layers[0])
    assert (row_cost(light), row_macs(light)) == (cost, cost[0])
    assert not light.training
    assert not light(rows).requires_grad
    assert [type(m) for m in block] == before
    for name, tensor in light.named_buffers():  # no more memory than its own
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size(), name


# ------------------------------------------------------------------------------------------------------------- its rows

OBSERVED = rungs(Int8(), SEVEN, Int8(smooth=0.3), Int8(weight_bits=7, smooth=0.5), BFloat16(), PACKED, Prepacked(),
                 LowRank(3), LowRank(9, "input"))  # fmt: skip


def norms_of(layer: Any, x: Tensor) -> list[Tensor]:
    """The two norms that a layer is to tell of its rows."""
    if isinstance(layer, Int8Layer):
        seen = x if layer.shrink is None else x * layer.shrink
        return [seen.norm(dim=1), seen.abs().amax(1)]
    return [x.norm(dim=1), (x @ layer.code.t() if isinstance(layer, LowRankLinear) else x).norm(dim=1)]


@pytest.mark.parametrize("form", OBSERVED)
def test_observe_gives_the_output_and_two_norms_of_what_each_linear_takes_in(form: LightForm) -> None:
    light: Any = form.fit(chain(64, 96, 10), torch.randn(200, 64))
    x = torch.randn(9, 64)
    out, norms = light.observe(x)
    assert torch.equal(out, light(x))
    wanted = []
    for layer, activation in zip(light.layers, light.activations, strict=True):
        wanted += norms_of(layer, x)
        x = activation(layer(x))
    torch.testing.assert_close(norms, torch.stack(wanted, 1))


ERRORS = [  # least and most of the rows' mean relative error, and the most of one row
    (Int8(), 0.005, 0.01, 0.015),
    (SEVEN, 0.00625, 0.0125, 0.01875),
    (BFloat16(), 0.001, 0.003, 0.004),
    (PACKED, 0.001, 0.003, 0.004),
    (Prepacked(), 0.0, 1e-6, 1e-5),
]


@pytest.mark.parametrize(("form", "least", "mean", "most"), rungs(*ERRORS))
@pytest.mark.parametrize("bias", [True, False])
def test_error_on_gaussian_rows(form: Precision, least: float, mean: float, most: float, bias: bool) -> None:
    linear, x = nn.Linear(1024, 1024, bias), torch.randn(300, 1024)
    error = relative(form.fit(linear)(x), exact(linear, x))
    assert least <= float(error.mean()) <= mean
    assert float(error.max()) <= most


# Measured: a row differs in another batch by 7e-7 of its norm in float32 (`F.linear` itself by 9e-7) and by 3e-8 in bfloat16,
# both at 3072 -> 768 or more, where oneDNN's order of summation changes; else by 0.
PADDED = rungs((BFloat16(), ROUNDED, 1e-5, 1e-3), (PACKED, ROUNDED, 1e-5, 1e-3), (Prepacked(), 1e-5, 2e-6, 3e-6))


@pytest.mark.parametrize(("form", "rtol", "atol", "apart"), PADDED)
def test_padding_changes_no_row(form: Precision, rtol: float, atol: float, apart: float) -> None:
    linear, x = nn.Linear(64, 48).requires_grad_(False), torch.randn(1100, 64)
    light, dtype = form.fit(linear), torch.bfloat16 if isinstance(form, BFloat16) else torch.float32
    for rows in [*range(1, 21), *range(255, 261), *range(511, 516), 1100]:
        wanted = nn.functional.linear(x[:rows].to(dtype), linear.weight.to(dtype), linear.bias.to(dtype)).float()
        torch.testing.assert_close(light(x[:rows]), wanted, rtol=rtol, atol=atol)
    for shape in ((4096, 64), (3072, 96), (64, 48), (300, 17)):
        light, x = form.fit(nn.Linear(*shape)), torch.randn(600, shape[0])
        whole, order = light(x), torch.randperm(600)
        for rows in (1, 2, 7, 16, 65, 300, 513):
            assert float(relative(light(x[:rows]), whole[:rows]).max()) < apart
            assert float(relative(light(x[order[:rows]]), whole[order[:rows]]).max()) < apart


# ----------------------------------------------------------------------------------------------------- what is refused

NAN = float("nan")
OPTIONS: list[tuple[Any, dict[str, Any], str]] = [
    (Int8, {"weight_bits": 4}, "weight_bits must be 8 or 7, got 4"),
    *((Int8, {"smooth": s}, f"smooth must be in [0, 1], got {s}") for s in (-0.1, NAN)),
    *((LowRank, {"rank": r}, f"rank must be >= 1, got {r}") for r in (0, -3)),
    (LowRank, {"rank": 2, "basis": "pca"}, "basis must be 'weight', 'input' or 'whitened', got 'pca'"),
    *((Pruned, {"energy": e}, f"energy must be in (0, 1], got {e}") for e in (0.0, -1.0, 1.5, NAN)),
    *((Pruned, {"ridge": r}, f"ridge must be > 0 (inf compensates the mean alone), got {r}") for r in (0.0, -1.0, NAN)),
]
SMOOTHED = Int8(weight_bits=7, smooth=0.5)
NEEDING = [LowRank(2, "input"), LowRank(2, "whitened"), Pruned(), SMOOTHED]
NEEDING += [LowRank(4, precision=SMOOTHED), Pruned(precision=SMOOTHED)]
LINEAR, RELU = nn.Linear(16, 16), nn.ReLU()
NOT_CHAINS = [RELU, nn.Sequential(), nn.Sequential(LINEAR, RELU), nn.Sequential(LINEAR, LINEAR, LINEAR)]
NOT_CHAINS += [nn.Sequential(RELU, LINEAR, RELU)]


@pytest.mark.parametrize(("form", "options", "message"), OPTIONS)
def test_a_form_that_cannot_be(form: Any, options: dict[str, Any], message: str) -> None:
    assert refusal(form, **options) == message


@pytest.mark.parametrize("form", NEEDING, ids=str)
def test_missing_rows(form: LightForm) -> None:
    wanted = f"{form} is fitted on calibration rows: pass calibration=rows, shaped (N, 16)"
    assert refusal(form.fit, chain(16, 16, 4)) == wanted


@pytest.mark.parametrize("shape", [(5, 7), (0, 16), (16,), (2, 3, 16)])
@pytest.mark.parametrize("form", [LowRank(2), *NEEDING[:3]], ids=str)
def test_rows_that_do_not_fit(form: LightForm, shape: tuple[int, ...]) -> None:
    wanted = f"calibration rows are shaped {shape}; {form} takes (N >= 1, 16)"
    assert refusal(form.fit, chain(16, 16, 4), torch.zeros(shape)) == wanted


def test_rows_that_are_not_finite_and_a_block_without_hidden_units() -> None:
    wanted = (
        "calibration rows hold values that are NaN or infinite: drop those rows to fit LowRank(rank=2, basis='weight')"
    )
    assert refusal(LowRank(2).fit, LINEAR, torch.full((1, 16), NAN)) == wanted
    wanted = "Pruned(energy=0.999) leaves out hidden units; a lone Linear has none"
    assert refusal(Pruned().fit, LINEAR, torch.randn(9, 16)) == wanted


@pytest.mark.parametrize("module", NOT_CHAINS, ids=lambda m: f"{type(m).__name__}{len(list(m.children()))}")
def test_not_a_chain(module: nn.Module) -> None:
    wanted = f"a light form is fitted to an nn.Linear or a chain Linear (activation Linear)*, got {module}"
    assert refusal(LowRank(2).fit, module) == wanted
