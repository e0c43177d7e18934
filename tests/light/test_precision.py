"""Precisions under the structural forms: the composed function up to rounding noise, and what a row of it costs."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dendrofx.errors import InputError
from dendrofx.graph.block import BlockData, row_cost, row_macs
from dendrofx.light import BFloat16, Int8, LightForm, LowRank, Precision, Prepacked, Pruned
from dendrofx.runtime.branches import DenseLinear, LightChain, LinearPair, LowRankLinear, ObservedChain
from dendrofx.runtime.int8 import Int8Layer
from dendrofx.runtime.kernels import BFloat16Linear
from dendrofx.runtime.packed import PackedLinear
from dendrofx.runtime.routing import count_rows, executed, split_rows
from tests.rungs import exact, needs_bf16, relative, rungs

Make = Callable[[Precision | None], LightForm]
PRECISIONS = rungs(
    Int8(), Int8(weight_bits=7), Int8(smooth=0.5), BFloat16(), BFloat16(packed=True), Prepacked()
)  # fmt: skip
NOISE = {
    8: 0.035,
    16: 0.006,
    32: 1e-6,
}  # mean over rows, of up to four Linears one after the other, by the operands' bits
STRUCTURES: dict[str, Make] = {
    "low rank, weight": lambda p: LowRank(32, precision=p),
    "low rank, input": lambda p: LowRank(32, "input", precision=p),
    "low rank, whitened": lambda p: LowRank(32, "whitened", precision=p),
    "low rank, one Linear stays": lambda p: LowRank(70, precision=p),
    "pruned": lambda p: Pruned(0.9, precision=p),
    "pruned, ridge": lambda p: Pruned(0.9, ridge=1e-3, precision=p),
}


def chain() -> nn.Sequential:
    return nn.Sequential(nn.Linear(128, 320), nn.ReLU(), nn.Linear(320, 96)).requires_grad_(False)


def plain_in_float64(light: nn.Module, x: Tensor) -> Tensor:
    """A structural form without precision, its float32 factors taken exactly."""
    assert isinstance(light, LightChain | ObservedChain)
    y = x.double()
    for layer, activation in zip(light.layers, light.activations, strict=True):
        factors = [layer.code, layer.decode] if isinstance(layer, LowRankLinear) else [layer.get_buffer("weight")]
        for factor in factors:
            y = y @ factor.double().t()
        y = activation(y if layer.bias is None else y + layer.bias.double())
    return y


def bits(light: nn.Module) -> set[int]:
    return {m.bits for m in light.modules() if hasattr(m, "bits")}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_composed_function_up_to_rounding(structure: str, precision: Precision) -> None:
    make, block, rows, x = STRUCTURES[structure], chain(), torch.randn(400, 128), torch.randn(200, 128)
    light = make(precision).fit(block, rows)
    wanted = plain_in_float64(make(None).fit(block, rows), x)
    (width,) = bits(light)
    error = relative(light(x), wanted)
    assert float(error.mean()) < NOISE[width]
    assert float(error.max()) < 2 * NOISE[width]
    assert not isinstance(light, ObservedChain)  # no row norms: no gate knows what to make of them
    assert not any(isinstance(m, LowRankLinear | DenseLinear) for m in light.modules())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_precision_alone_observes_each_linear(precision: Precision) -> None:
    block, x = chain(), torch.randn(40, 128)
    light = precision.fit(block, torch.randn(100, 128))
    assert isinstance(light, ObservedChain)
    out, norms = light.observe(x)
    assert torch.equal(out, light(x))
    assert norms.shape == (40, 4)
    assert float(relative(out, exact(block, x)).mean()) < NOISE[max(bits(light))]


def test_smoothing_in_a_chain_sees_the_rows_of_each_linear() -> None:
    block, rows = chain(), torch.randn(300, 128)
    rows[:, 4] *= 50.0
    form = Int8(weight_bits=7, smooth=0.5)
    light, data = form.fit(block, rows), BlockData(block, rows)
    assert isinstance(light, ObservedChain)
    for layer, linear, seen in zip(light.layers, data.linears, data.inputs, strict=True):
        alone = form.fit(linear, seen)
        assert isinstance(alone, ObservedChain)
        for name, value in alone.layers[0].named_buffers():
            assert torch.equal(layer.get_buffer(name), value)


def test_a_factored_linear_is_a_pair_and_one_that_stays_is_cast() -> None:
    block = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8))
    for precision, kind in ((Int8(weight_bits=7), Int8Layer), (Prepacked(), PackedLinear)):
        pair, stays = LowRank(30, precision=precision).fit(block).get_submodule("layers").children()
        code, decode = pair.get_submodule("code"), pair.get_submodule("decode")
        assert isinstance(code, kind)
        assert {type(m) for m in (code, decode, stays)} == {type(code)}
        assert code.bias is None
        assert decode.bias is not None


SCALED: list[LightForm] = [Int8(weight_bits=7), LowRank(9, precision=Int8(weight_bits=7))]
SCALED += [Pruned(0.9, precision=Int8(weight_bits=7)), Int8(weight_bits=7, smooth=0.5)]


@pytest.mark.parametrize("form", SCALED, ids=str)
def test_an_int8_branch_tells_the_scale_of_every_product(form: LightForm) -> None:
    light, x = form.fit(chain(), torch.randn(200, 128)), torch.randn(30, 128)
    scripted, layers = torch.jit.script(light), [m for m in light.modules() if isinstance(m, Int8Layer)]
    seen: list[Tensor] = []
    for layer in layers:
        layer.register_forward_pre_hook(lambda m, args: seen.append(m.quantise(args[0])[1]))
    out = light(x)
    assert len(seen) == len(layers) == (4 if isinstance(form, LowRank) else 2)
    for module in (scripted, light):
        again, found = module.scales(x)  # type: ignore[operator]
        assert torch.equal(again, out)
        assert torch.equal(found, torch.cat(seen[: len(layers)], 1))


COSTS: list[tuple[LightForm, tuple[int, int, int, int]]] = [
    (Int8(weight_bits=7), (96 * 64 + 64 * 10, 96 * 16 + 160, 0, 0)),
    (Prepacked(), (6784, 6784, 6784, 6784)),
    (LowRank(9), (9 * 160 + 64 * 10, 9 * 160 + 64 * 10, 0, 0)),  # the second stays: 9 * 74 is more than 640
    (LowRank(9, precision=Int8(weight_bits=7)), (2080, 216 + 144 + 160, 0, 0)),
    (LowRank(9, precision=Prepacked()), (2080, 2080, 2080, 2080)),
]


@pytest.mark.parametrize(("form", "cost"), COSTS, ids=str)
def test_cost_of_a_row(form: LightForm, cost: tuple[int, int, int, int]) -> None:
    light = form.fit(nn.Sequential(nn.Linear(96, 64), nn.ReLU(), nn.Linear(64, 10)))
    assert row_cost(light) == cost
    assert row_macs(light) == cost[0]


@needs_bf16
@pytest.mark.parametrize("packed", [True, False])
def test_cost_of_a_row_in_bfloat16(packed: bool) -> None:
    block = nn.Sequential(nn.Linear(96, 64), nn.ReLU(), nn.Linear(64, 10))
    light = LowRank(9, precision=BFloat16(packed)).fit(block)
    assert row_cost(light) == (2080, 1040, 2080, 1040)
    assert {type(m) for m in light.modules()} >= {PackedLinear if packed else BFloat16Linear, LinearPair}


def test_cost_of_parts_that_pad_and_parts_that_do_not() -> None:
    parts = nn.Sequential(PackedLinear(torch.randn(4, 8), None), nn.ReLU(), nn.Linear(4, 3))
    assert row_cost(parts) == (44, 44, 32, 32)
    assert row_cost(nn.ReLU()) == (0, 0, 0, 0)


def test_padding_rows_are_counted_where_they_run() -> None:
    assert [executed(n, 10, 7) for n in (0, 1, 3, 9, 300)] == [0, 10, 37, 111, 3140]
    assert executed(300, 10, 0) == 3000
    score = torch.tensor([2.0] * 11 + [0.0] * 29)
    costs = [[5, 5, 0, 0], [100, 50, 100, 50], [1000, 250, 60, 30]]  # gate, light, full
    tolerance = torch.tensor(1.0)
    for from_share, light_rows, light_padded in ((2.0, 40, 40), (0.0, 29, 32)):
        counts = count_rows(split_rows(score, tolerance, from_share), score, tolerance, 1e-3, False, costs, 1200)
        assert counts == {
            "rows": 40, "hard_rows": 11, "near_rows": 0, "light_rows": light_rows,
            "gate_macs": 200, "light_macs": light_padded * 100, "full_macs": 11 * 1000 + 60, "original_macs": 48000,
            "gate_work": 200, "light_work": light_padded * 50, "full_work": 11 * 250 + 30,
        }  # fmt: skip


@pytest.mark.parametrize("make", [lambda p: LowRank(4, precision=p), lambda p: Pruned(precision=p)])
def test_a_precision_that_needs_rows_makes_the_form_need_them(make: Make) -> None:
    form = make(Int8(weight_bits=7, smooth=0.5))
    with pytest.raises(InputError) as error:
        form.fit(chain())
    assert str(error.value) == f"{form} is fitted on calibration rows: pass calibration=rows, shaped (N, 128)"
