"""Each precision against its own rounding by hand, and under the structural forms, which compose with it up to that."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dendrofx.graph.block import BlockData, row_cost
from dendrofx.light import BFloat16, Int8, LightForm, LowRank, Precision, Prepacked, Pruned
from dendrofx.light.int8 import LARGEST
from dendrofx.runtime.branches import DenseLinear, LowRankLinear, ObservedChain
from dendrofx.runtime.int8 import Int8Layer
from dendrofx.runtime.packed import PackedLinear
from tests.rungs import exact, relative, rungs, whole_numbers

SEVEN, PACKED = Int8(weight_bits=7), BFloat16(packed=True)
SHAPES = [(1024, 64), (64, 300), (33, 100), (7, 3), (2, 9), (1, 40), (16, 1), (1, 1)]
SIZES = torch.logspace(-3, 3, 40)[:, None]
ROUNDING = 2.0**-8  # half a step of 8 significant bits
SUM = 1e-6  # float32 sums, relative to the sum of magnitudes


def float64(values: Tensor) -> Any:
    return values.detach().double().numpy()


def layer_of(light: Any) -> Int8Layer:
    layer = light.layers[0]
    assert isinstance(layer, Int8Layer)
    return layer


# ------------------------------------------------------------------------------------------------- a precision by itself


@pytest.mark.parametrize("form", rungs(BFloat16(), PACKED, Prepacked()))
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
def test_rows_weights_and_result_are_rounded_and_nothing_else(
    form: Precision, shape: tuple[int, int], bias: bool
) -> None:
    dtype, half_step = (torch.float32, 0.0) if isinstance(form, Prepacked) else (torch.bfloat16, ROUNDING)
    linear, x = nn.Linear(*shape, bias).requires_grad_(False), torch.randn(40, shape[0]) * SIZES
    a, w, b = (v.to(dtype).double() for v in (x, linear.weight, linear.bias if bias else torch.zeros(1)))
    wanted, magnitude = a @ w.t() + b, a.abs() @ w.abs().t() + b.abs()
    got = form.fit(linear)(x)
    assert torch.equal(got.to(dtype).float(), got)
    assert bool(((got.double() - wanted).abs() <= half_step * wanted.abs() + SUM * magnitude).all())


@pytest.mark.parametrize("form", rungs(Int8(), SEVEN))
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
def test_int8_rounds_weights_and_rows_as_by_hand(form: Int8, shape: tuple[int, int], bias: bool) -> None:
    """The layer's product is held against its own whole numbers in `tests/runtime/test_int8.py`."""
    linear, x = nn.Linear(*shape, bias), torch.randn(40, shape[0]) * SIZES
    layer = layer_of(form.fit(linear))
    step = np.abs(float64(linear.weight)).max(1) / LARGEST[form.weight_bits]
    assert (np.abs(float64(layer.weight) - float64(linear.weight) / step[:, None]) <= 0.5 + 1e-4).all()  # of a half
    assert int(layer.weight.abs().max()) == LARGEST[form.weight_bits]
    np.testing.assert_allclose(float64(layer.step()), step, rtol=1e-6)
    half = float64(x.abs().amax(1, keepdim=True)) / 254, step / 2  # half a step everywhere
    ones = np.ones((40, shape[0]))
    bound = half[0] * (ones @ np.abs(float64(linear.weight)).T)
    bound += (np.abs(float64(x)) + half[0] * ones).sum(1)[:, None] * half[1]
    assert (np.abs(float64(layer(x)) - float64(exact(linear, x))) <= bound * 1.001 + 1e-6).all()


@pytest.mark.parametrize("form", rungs(BFloat16(), PACKED))
def test_large_and_small_rows_keep_their_relative_error(form: BFloat16) -> None:
    linear, x = nn.Linear(256, 128, bias=False), torch.randn(20, 256)
    for scale in (1e-30, 1e-10, 1e10, 1e30):
        assert float(relative(form.fit(linear)(x * scale), exact(linear, x * scale)).max()) < 0.005


@pytest.mark.parametrize("form", rungs(Int8(), SEVEN))
def test_rows_of_nothing_channels_of_nothing_and_channels_of_very_different_size(form: Int8) -> None:
    x = torch.cat([torch.zeros(2, 64), torch.full((2, 64), 1e-40), torch.randn(2, 64) * 1e-34])
    for bias in (True, False):
        linear = nn.Linear(64, 10, bias).requires_grad_(False)
        assert torch.equal(form.fit(linear)(x), (linear.bias if bias else torch.zeros(10)).expand(6, 10))
    linear.weight.mul_(torch.logspace(-8, 8, 10)[:, None])[3] = 0.0
    x = torch.randn(50, 64)
    got, wanted = form.fit(linear)(x), exact(linear, x)
    assert bool((got[:, 3] == 0).all())
    assert float(relative(got.t(), wanted.t()).max()) < 0.03  # each channel has a scale of its own


# ------------------------------------------------------------------------------------------------------------- smoothing

SMOOTH = rungs(Int8(smooth=0.3), Int8(smooth=0.5), Int8(smooth=0.5, weight_bits=7), Int8(smooth=1.0))


def outlier_rows(n: int) -> Tensor:
    """Two columns far above the others, as LayerNorm gains make them."""
    x = torch.randn(n, 64)
    x[:, [5, 40]] *= 60.0
    return x


@pytest.mark.parametrize("form", SMOOTH[:3])
def test_smoothing_reduces_the_error_on_rows_with_outlier_columns(form: Int8) -> None:
    linear, x = nn.Linear(64, 128).requires_grad_(False), outlier_rows(300)
    linear.weight[:, [5, 40]] *= 0.02  # the outliers do not make up the output
    plain, smooth = (f.fit(linear, outlier_rows(500))(x) for f in (Int8(form.weight_bits), form))
    assert float(relative(smooth, exact(linear, x)).mean()) < 0.35 * float(relative(plain, exact(linear, x)).mean())


@pytest.mark.parametrize("form", SMOOTH)
def test_a_smoothed_layer_is_the_same_function_up_to_quantisation(form: Int8) -> None:
    linear, rows, x = nn.Linear(64, 128).requires_grad_(False), outlier_rows(500), outlier_rows(20)
    rows[:, 7] = 0.0  # a column that never moves
    linear.weight[:, 9] = 0.0
    layer = layer_of(form.fit(linear, rows))
    assert layer.shrink is not None
    assert bool((layer.shrink > 0).all())
    shrink = float64(layer.shrink)
    step = float64(layer.step())[:, None] * shrink
    assert (np.abs(float64(layer.weight) * step - float64(linear.weight)) <= 0.501 * step).all()
    q, largest = whole_numbers(layer, x)
    assert (np.abs(float64(q) - 127 * float64(x) * shrink / float64(largest)) <= 0.501).all()


def test_smoothing_in_a_chain_sees_the_rows_of_each_linear() -> None:
    block, rows, form = chain(), torch.randn(300, 128), Int8(weight_bits=7, smooth=0.5)
    rows[:, 4] *= 50.0
    light, data = form.fit(block, rows), BlockData(block, rows)
    for layer, linear, seen in zip(light.layers, data.linears, data.inputs, strict=True):  # type: ignore[arg-type]
        for name, value in layer_of(form.fit(linear, seen)).named_buffers():
            assert torch.equal(layer.get_buffer(name), value)


# ---------------------------------------------------------------------------------------------- under a structural form

PRECISIONS = rungs(Int8(), SEVEN, Int8(smooth=0.5), BFloat16(), PACKED, Prepacked())
NOISE = {8: 0.035, 16: 0.006, 32: 1e-6}  # mean over rows, of up to four Linears in a row, by the operands' bits
STRUCTURES: dict[str, Callable[[Precision | None], LightForm]] = {
    "low rank, weight": lambda p: LowRank(32, precision=p),
    "low rank, input": lambda p: LowRank(32, "input", precision=p),
    "low rank, whitened": lambda p: LowRank(32, "whitened", precision=p),
    "low rank, one Linear stays": lambda p: LowRank(70, precision=p),
    "pruned": lambda p: Pruned(0.9, precision=p),
    "pruned, ridge": lambda p: Pruned(0.9, ridge=1e-3, precision=p),
}


def chain() -> nn.Sequential:
    return nn.Sequential(nn.Linear(128, 320), nn.ReLU(), nn.Linear(320, 96)).requires_grad_(False)


def in_float64(light: Any, x: Tensor) -> Tensor:
    """A structural form without precision, its float32 factors taken exactly."""
    y = x.double()
    for layer, activation in zip(light.layers, light.activations, strict=True):
        factors = [layer.code, layer.decode] if isinstance(layer, LowRankLinear) else [layer.weight]
        for factor in factors:
            y = F.linear(y, factor.double())
        y = activation(y if layer.bias is None else y + layer.bias.double())
    return y


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_composed_function_up_to_rounding(structure: str, precision: Precision) -> None:
    make, block, rows, x = STRUCTURES[structure], chain(), torch.randn(400, 128), torch.randn(200, 128)
    light = make(precision).fit(block, rows)
    (width,) = {m.bits for m in light.modules() if hasattr(m, "bits")}
    error = relative(light(x), in_float64(make(None).fit(block, rows), x))
    assert float(error.mean()) < NOISE[width]  # type: ignore[index]
    assert float(error.max()) < 2 * NOISE[width]  # type: ignore[index]
    assert not isinstance(light, ObservedChain)  # no row norms: no gate knows what to make of them
    assert not any(isinstance(m, LowRankLinear | DenseLinear) for m in light.modules())


def test_a_factored_linear_is_a_pair_and_one_that_stays_is_cast() -> None:
    block = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8))
    for precision, kind in ((SEVEN, Int8Layer), (Prepacked(), PackedLinear)):
        light: Any = LowRank(30, precision=precision).fit(block)
        pair, stays = light.layers
        assert isinstance(stays, kind)
        assert {type(pair.code), type(pair.decode)} == {type(stays)}
        assert (pair.code.bias is None, pair.decode.bias is None) == (True, False)


SCALED = [SEVEN, LowRank(9, precision=SEVEN), Pruned(0.9, precision=SEVEN), Int8(weight_bits=7, smooth=0.5)]


@pytest.mark.parametrize("form", SCALED, ids=str)
def test_an_int8_branch_tells_the_scale_of_every_product(form: LightForm) -> None:
    light, x = form.fit(chain(), torch.randn(200, 128)), torch.randn(30, 128)
    scripted, layers = torch.jit.script(light), [m for m in light.modules() if isinstance(m, Int8Layer)]
    seen: list[Tensor] = []
    for layer in layers:
        layer.register_forward_pre_hook(lambda m, args: seen.append(m.quantise(args[0])[1]))
    out = light(x)
    assert len(seen) == len(layers) == (4 if isinstance(form, LowRank) else 2)
    wanted = torch.cat(seen, 1)
    for module in (scripted, light):
        again, found = module.scales(x)  # type: ignore[operator]
        assert torch.equal(again, out)
        assert torch.equal(found, wanted)


def test_cost_of_parts_that_pad_and_parts_that_do_not() -> None:
    parts = nn.Sequential(PackedLinear(torch.randn(4, 8), None), nn.ReLU(), nn.Linear(4, 3))
    assert row_cost(parts) == (44, 44, 32, 32)
    assert row_cost(nn.ReLU()) == (0, 0, 0, 0)
