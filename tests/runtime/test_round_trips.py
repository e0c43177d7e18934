"""Layers and branches compute the same bits however they were scripted, frozen, saved, pickled or copied."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from dendrofx.light import BFloat16, Int8, LightForm, LowRank, Prepacked, Pruned, Transposed
from dendrofx.runtime.fused_int8 import FusedInt8Linear
from dendrofx.runtime.packed import PackedLinear, fuse_activation
from tests.round_trips import SAVED_FROZEN, Trip, assert_same, frozen, reloaded, round_trips, saved_bytes
from tests.rungs import needs_bf16, needs_fbgemm, rungs, seeded

KEPT = ("macs", "bits", "pads", "converts", "pointwise", "algorithm", "training")
ACTIVATIONS = {"": nn.Identity(), "gelu": nn.GELU(), "tanh gelu": nn.GELU("tanh")}
Make = Callable[[], nn.Module]


def fused(bias: bool = True, shrink: bool = True, width: int = 64, out: int = 48) -> FusedInt8Linear:
    weight, scale = torch.randint(-64, 65, (out, width)).to(torch.int8), torch.rand(out)
    parts = (torch.randn(out) if bias else None, torch.rand(width) if shrink else None)
    return FusedInt8Linear(weight, scale, *parts).eval()


def packed(activation: str = "", bias: bool = True, dtype: torch.dtype = torch.float32) -> nn.Module:
    linear = nn.Linear(64, 48, bias, dtype=dtype).requires_grad_(False)
    return fuse_activation(PackedLinear(linear.weight, linear.bias), ACTIVATIONS[activation])[0].eval()


def branch(form: LightForm) -> nn.Module:
    linears = nn.Linear(64, 96), nn.Linear(96, 48), nn.Linear(48, 40)
    return form.fit(nn.Sequential(linears[0], nn.GELU(), linears[1], nn.Tanh(), linears[2]), torch.randn(90, 64))


PACKED: dict[str, Make] = {
    f"packed {name}{bias}": lambda n=name, b=bias: packed(n, b) for name in ACTIVATIONS for bias in (True, False)
}
LAYERS = [pytest.param(make, id=name) for name, make in PACKED.items()]
LAYERS += [pytest.param(lambda: packed("gelu", dtype=torch.bfloat16), id="packed bfloat16", marks=needs_bf16)]
FUSED = [
    pytest.param(lambda b=bias, s=shrink: fused(b, s), id=f"fbgemm {bias} {shrink}", marks=needs_fbgemm)
    for bias in (True, False)
    for shrink in (True, False)
]
FORMS = [
    LowRank(8),
    LowRank(8, "whitened"),
    Pruned(0.9),
    Int8(weight_bits=7),
    LowRank(8, precision=Int8(weight_bits=7)),
]
SAVABLE = [
    pytest.param(lambda f=p.values[0]: branch(f), id=p.id, marks=p.marks)
    for p in rungs(*FORMS, BFloat16(), Int8(), Transposed())
]
PREPACKED = pytest.param(lambda: branch(Prepacked()), id="Prepacked()")


@round_trips
@pytest.mark.parametrize("make", [*LAYERS, *FUSED, *SAVABLE, PREPACKED])
def test_the_same_bits(make: Make, trip: Trip) -> None:
    layer: Any = seeded(make)
    made = trip(layer)
    assert_same(made, layer, *[(torch.randn(rows, 64),) for rows in (0, 1, 17, 530)])
    for name in KEPT:
        if hasattr(layer, name) and isinstance(made, type(layer)):
            assert getattr(made, name) == getattr(layer, name)
    assert not made(torch.randn(2, 64)).requires_grad


@pytest.mark.parametrize("trip", SAVED_FROZEN.values(), ids=SAVED_FROZEN)
@pytest.mark.parametrize("make", [*FUSED, *SAVABLE])
def test_frozen_ones_can_be_saved(make: Make, trip: Trip) -> None:
    layer = seeded(make)
    assert_same(trip(layer), layer, (torch.randn(9, 64),))


def test_a_frozen_packed_one_cannot_be_saved() -> None:
    """The packed weight is a constant by then. When this fails, drop the advice to freeze after loading."""
    with pytest.raises(NotImplementedError, match="Cannot access storage of OpaqueTensorImpl"):
        saved_bytes(frozen(torch.jit.script(packed())))


@pytest.mark.parametrize("make", [packed, pytest.param(fused, marks=needs_fbgemm)])
def test_a_loaded_script_knows_its_costs_and_a_state_is_laid_out_again(make: Any) -> None:
    layer, other, x = make(), make(), torch.randn(9, 64)
    loaded = reloaded(torch.jit.script(layer))
    for name in KEPT:
        assert getattr(loaded, name, None) == getattr(layer, name, None)
    assert not torch.equal(other(x), layer(x))
    assert str(other.load_state_dict(layer.state_dict())) == "<All keys matched successfully>"
    assert torch.equal(other(x), layer(x))
    assert next(copy.deepcopy(layer).buffers()).data_ptr() != next(layer.buffers()).data_ptr()
    for trained in (copy.copy(layer.train()), copy.deepcopy(layer)):
        assert trained.training


@pytest.mark.parametrize("made", [
    pytest.param(lambda: PackedLinear(torch.randn(1024, 512), torch.randn(1024)), id="packed"),
    pytest.param(lambda: fused(width=2048, out=1024), id="fbgemm", marks=needs_fbgemm),
])  # fmt: skip
def test_the_saved_file_holds_the_weight_once(made: Make) -> None:
    scripted = torch.jit.script(made())
    assert saved_bytes(scripted) < 1.1 * 2 * 1024 * 1024
    if isinstance(made(), FusedInt8Linear):
        assert saved_bytes(frozen(scripted)) < 1.1 * 2 * 1024 * 1024
