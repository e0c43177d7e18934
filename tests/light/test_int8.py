"""Int8: its quantisation against numpy in float64, its error against a bound for every entry, and smoothing."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dendrofx.errors import InputError
from dendrofx.graph.block import row_cost
from dendrofx.light import Int8
from dendrofx.light.int8 import LARGEST
from dendrofx.runtime.branches import ObservedChain
from dendrofx.runtime.int8 import Int8Layer
from tests.rungs import exact, relative, rungs, whole_numbers

Array = NDArray[np.float64]
FORMS = rungs(Int8(), Int8(weight_bits=7))
SHAPES = [(1024, 64), (64, 300), (33, 100), (7, 3), (2, 9), (1, 40), (1, 1), (16, 1)]


def layer_of(light: nn.Module, index: int = 0) -> Int8Layer:
    assert isinstance(light, ObservedChain)
    layer = light.layers[index]
    assert isinstance(layer, Int8Layer)
    return layer


def float64(values: Tensor) -> Array:
    return np.asarray(values.detach().numpy(), dtype=np.float64)


def assert_rounded(got: Tensor, values: Array) -> None:
    """To the nearest whole number; a float32 quotient may take the other one at a half, up to its own rounding."""
    assert (np.abs(float64(got) - values) <= 0.5 + 1e-4).all()


def steps(linear: nn.Linear, form: Int8) -> Array:
    """One step of each output channel's weights."""
    found: Array = np.abs(float64(linear.weight)).max(1) / LARGEST[form.weight_bits]
    return found


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bias", [True, False])
def test_error_on_gaussian_rows(form: Int8, bias: bool) -> None:
    linear, x = nn.Linear(1024, 1024, bias), torch.randn(300, 1024)
    limit = 0.01 if form.weight_bits == 8 else 0.0125
    error = relative(form.fit(linear)(x), exact(linear, x))
    assert limit / 2 < float(error.mean()) <= limit
    assert float(error.max()) < 1.5 * limit


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
def test_no_entry_is_further_off_than_half_a_step_everywhere(form: Int8, shape: tuple[int, int], bias: bool) -> None:
    linear, x = nn.Linear(*shape, bias), torch.randn(40, shape[0]) * torch.logspace(-3, 3, 40)[:, None]
    row = float64(x.abs().amax(1, keepdim=True)) / 254
    weight = steps(linear, form) / 2
    ones = np.ones((40, shape[0]))
    bound = row * (ones @ np.abs(float64(linear.weight)).T) + (np.abs(float64(x)) + row * ones).sum(1)[:, None] * weight
    off = np.abs(float64(form.fit(linear)(x)) - float64(exact(linear, x)))
    assert (off <= bound * 1.001 + 1e-6).all()


@pytest.mark.parametrize("form", FORMS)
def test_weights_and_rows_are_quantised_as_by_hand(form: Int8) -> None:
    linear, x = nn.Linear(48, 64), torch.randn(200, 48) * torch.logspace(-20, 20, 200)[:, None]
    layer = layer_of(form.fit(linear))
    step = steps(linear, form)
    assert_rounded(layer.weight, float64(linear.weight) / step[:, None])
    assert int(layer.weight.abs().max()) == LARGEST[form.weight_bits]
    np.testing.assert_allclose(float64(layer.step()), step, rtol=1e-6)
    q, largest = whole_numbers(layer, x)
    a = np.abs(float64(x)).max(1, keepdims=True)
    assert np.array_equal(float64(largest), a)
    assert_rounded(q, 127 * float64(x) / a)
    by_hand, bias = float64(q) @ float64(layer.weight).T * (a / 127) * step, float64(linear.bias)
    assert (np.abs(float64(layer(x)) - (by_hand + bias)) <= 1e-6 * (np.abs(by_hand) + np.abs(bias))).all()


@pytest.mark.parametrize("form", FORMS)
def test_a_row_has_the_same_bits_in_any_batch_of_a_chain(form: Int8) -> None:
    block = nn.Sequential(nn.Linear(33, 77), nn.GELU(), nn.Linear(77, 19), nn.Tanh(), nn.Linear(19, 5))
    light, x = form.fit(block), torch.randn(64, 33)
    x[9] *= 1e4
    whole, order = light(x), torch.randperm(64)
    for size in (1, 7, 63):
        assert torch.equal(torch.cat([light(part) for part in x.split(size)]), whole)
    assert torch.equal(light(x[order]), whole[order])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bias", [True, False])
def test_rows_of_nothing_give_the_bias(form: Int8, bias: bool) -> None:
    linear = nn.Linear(20, 8, bias)
    x = torch.cat([torch.zeros(2, 20), torch.full((2, 20), 1e-40), torch.randn(2, 20) * 1e-34])
    assert torch.equal(form.fit(linear)(x), (linear.bias.detach() if bias else torch.zeros(8)).expand(6, 8))


@pytest.mark.parametrize("form", FORMS)
def test_channels_of_zeros_and_of_very_different_size(form: Int8) -> None:
    linear, x = nn.Linear(64, 10), torch.randn(50, 64)
    with torch.no_grad():
        linear.weight.mul_(torch.logspace(-8, 8, 10)[:, None])
        linear.weight[3] = 0.0
        linear.bias.zero_()
    got, wanted = form.fit(linear)(x), exact(linear, x)
    assert bool((got[:, 3] == 0).all())
    alone = relative(got.t(), wanted.t())  # each channel has a scale of its own
    assert float(alone.max()) < 0.03


def outlier_rows(n: int, width: int = 64) -> Tensor:
    """Two columns far above the others, as LayerNorm gains make them."""
    x = torch.randn(n, width)
    x[:, [5, 40]] *= 60.0
    return x


SMOOTH = rungs(Int8(smooth=0.3), Int8(smooth=0.5), Int8(smooth=0.5, weight_bits=7))


@pytest.mark.parametrize("form", SMOOTH)
def test_smoothing_reduces_the_error_on_rows_with_outlier_columns(form: Int8) -> None:
    linear, x = nn.Linear(64, 128), outlier_rows(300)
    with torch.no_grad():
        linear.weight[:, [5, 40]] *= 0.02  # the outliers do not make up the output
    plain, smooth = (relative(f.fit(linear, outlier_rows(500))(x), exact(linear, x)).mean()
                     for f in (Int8(form.weight_bits), form))  # fmt: skip
    assert float(smooth) < 0.35 * float(plain)


@pytest.mark.parametrize("form", [*SMOOTH, *rungs(Int8(smooth=1.0))])
def test_a_smoothed_layer_is_the_same_function_up_to_quantisation(form: Int8) -> None:
    linear = nn.Linear(64, 128)
    rows = outlier_rows(500)
    rows[:, 7] = 0.0  # a column that never moves
    with torch.no_grad():
        linear.weight[:, 9] = 0.0
    layer = layer_of(form.fit(linear, rows))
    assert layer.shrink is not None
    assert bool((layer.shrink > 0).all())
    step, shrink = float64(layer.step())[:, None], float64(layer.shrink)
    stored = float64(layer.weight) * step * shrink
    assert (np.abs(stored - float64(linear.weight)) <= 0.501 * step * shrink).all()
    x = outlier_rows(20)
    q, largest = whole_numbers(layer, x)
    seen = float64(x) * shrink
    assert (np.abs(float64(q) * float64(largest) / 127 - seen) <= 0.501 * float64(largest) / 127).all()


@pytest.mark.parametrize("form", [*FORMS, *SMOOTH])
def test_observe_gives_the_output_the_norm_and_the_largest_entry(form: Int8) -> None:
    light, x = form.fit(nn.Linear(64, 8), outlier_rows(100)), outlier_rows(9)
    shrink = layer_of(light).shrink
    assert (shrink is None) == (form.smooth == 0)
    out, norms = light.observe(x)  # type: ignore[operator]
    seen = x if shrink is None else x * shrink
    assert torch.equal(out, light(x))
    torch.testing.assert_close(norms, torch.stack([seen.norm(dim=1), seen.abs().amax(1)], 1))


def test_it_counts_eight_bits() -> None:
    light = Int8(weight_bits=7).fit(nn.Sequential(nn.Linear(10, 33), nn.ReLU(), nn.Linear(33, 5)))
    assert repr(layer_of(light)).endswith("Int8Linear(10 -> 33, int8)")
    assert row_cost(light) == (330 + 165, 83 + 42, 0, 0)  # a quarter, rounded up; no padding rows


@pytest.mark.parametrize(("options", "message"), [
    ({"weight_bits": 4}, "weight_bits must be 8 or 7, got 4"),
    ({"smooth": -0.1}, "smooth must be in [0, 1], got -0.1"),
    ({"smooth": float("nan")}, "smooth must be in [0, 1], got nan"),
], ids=["bits", "below", "nan"])  # fmt: skip
def test_a_form_that_cannot_be(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError) as error:
        Int8(**options)  # type: ignore[arg-type]
    assert str(error.value) == message


def test_smoothing_needs_rows() -> None:
    with pytest.raises(InputError) as error:
        Int8(weight_bits=7, smooth=0.5).fit(nn.Linear(16, 4))
    wanted = "Int8(weight_bits=7, smooth=0.5) is fitted on calibration rows: pass calibration=rows, shaped (N, 16)"
    assert str(error.value) == wanted
