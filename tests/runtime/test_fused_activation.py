"""Activations that oneDNN applies to a packed Linear's result: the function, what is fused and what is not, and artifacts."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dendrofx.light import BFloat16, Int8, LowRank, Precision, Prepacked, Pruned
from dendrofx.runtime.branches import LightChain
from dendrofx.runtime.packed import PackedLinear, fuse_activation
from tests.rungs import exact, needs_bf16, reloaded

# The kernel computes GELU by its own polynomials; float32 rounding of the product comes on top.
FUSED = 1e-6
COUNTS = (0, 1, 3, 17, 64, 530)
ACTIVATIONS: dict[str, nn.Module] = {
    "relu": nn.ReLU(),
    "relu in place": nn.ReLU(inplace=True),
    "gelu": nn.GELU(),
    "tanh gelu": nn.GELU("tanh"),
}
OTHERS: dict[str, nn.Module] = {"tanh": nn.Tanh(), "sigmoid": nn.Sigmoid(), "silu": nn.SiLU(), "none": nn.Identity()}


def parts(bias: bool = True) -> tuple[PackedLinear, nn.Linear]:
    linear = nn.Linear(64, 48, bias).requires_grad_(False)
    return PackedLinear(linear.weight, linear.bias).eval(), linear


def fused(activation: nn.Module, bias: bool = True) -> PackedLinear:
    layer, _ = parts(bias)
    made, after = fuse_activation(layer, activation)
    assert isinstance(made, PackedLinear)
    assert type(after) is nn.Identity
    return made.eval()


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("bias", [True, False])
def test_fused_equals_unfused(name: str, bias: bool) -> None:
    (layer, linear), activation = parts(bias), ACTIVATIONS[name]
    made, _ = fuse_activation(layer, activation)
    for rows in COUNTS:
        x = torch.randn(rows, 64) * torch.logspace(-3, 2, rows)[:, None]
        plain = layer(x)
        scale = plain.abs().amax(1, keepdim=True) if rows else plain
        assert bool(((made(x) - activation(plain.clone())).abs() <= FUSED * (1 + scale)).all())
        assert bool(
            ((made(x).double() - exact(nn.Sequential(linear, activation), x)).abs() <= 2 * FUSED * (1 + scale)).all()
        )


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("bias", [True, False])
def test_scripts_saved_loaded_and_frozen_give_the_same_bits(name: str, bias: bool) -> None:
    layer = fused(ACTIVATIONS[name], bias)
    scripted = torch.jit.script(layer)
    loaded = reloaded(scripted)
    again = reloaded(loaded)
    frozen = torch.jit.freeze(reloaded(scripted).eval())
    for rows in COUNTS:
        x = torch.randn(rows, 64)
        for module in (scripted, loaded, again, copy.deepcopy(scripted), frozen):
            for _ in range(2):
                assert torch.equal(module(x), layer(x))
    assert (loaded.pointwise, loaded.algorithm) == (layer.pointwise, layer.algorithm)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_copies_pickles_and_loaded_states_keep_the_activation(name: str) -> None:
    layer, x = fused(ACTIVATIONS[name]), torch.randn(30, 64)
    for other in (copy.copy(layer), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x), layer(x))
        assert torch.equal(torch.jit.script(other)(x), layer(x))
    other = fused(ACTIVATIONS[name])
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), layer(x))


def test_what_is_fused_and_what_it_is_called() -> None:
    names = {name: (fused(a).pointwise, fused(a).algorithm) for name, a in ACTIVATIONS.items()}
    assert names == {
        "relu": ("relu", ""),
        "relu in place": ("relu", ""),
        "gelu": ("gelu", "none"),
        "tanh gelu": ("gelu", "tanh"),
    }
    assert repr(fused(nn.GELU())) == "PackedLinear(64 -> 48, float32, packed, gelu)"
    assert repr(parts()[0]) == "PackedLinear(64 -> 48, float32, packed)"


@pytest.mark.parametrize("name", OTHERS)
def test_other_activations_stay(name: str) -> None:
    layer, _ = parts()
    assert fuse_activation(layer, OTHERS[name]) == (layer, OTHERS[name])


def test_one_activation_only() -> None:
    layer = fused(nn.ReLU())
    gelu = nn.GELU()
    assert fuse_activation(layer, gelu) == (layer, gelu)


class Louder(nn.GELU):
    """A subclass may compute anything."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def test_subclasses_stay() -> None:
    (layer, _), louder = parts(), Louder()
    assert fuse_activation(layer, louder) == (layer, louder)


def block(activation: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(64, 96), activation, nn.Linear(96, 48), nn.Tanh(), nn.Linear(48, 40)).requires_grad_(
        False
    )


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_chain_fuses_packed_linears(name: str) -> None:
    chain, x = block(ACTIVATIONS[name]), torch.randn(37, 64)
    light = Prepacked().fit(chain)
    assert isinstance(light, LightChain)
    assert [m.pointwise != "none" for m in light.layers] == [True, False, False]
    assert [type(m) for m in light.activations] == [nn.Identity, nn.Tanh, nn.Identity]
    torch.testing.assert_close(light(x), chain(x), rtol=0.0, atol=1e-5)
    scripted = torch.jit.script(light)
    for module in (scripted, reloaded(scripted), torch.jit.freeze(reloaded(scripted).eval())):
        for _ in range(2):
            assert torch.equal(module(x), light(x))
    out, norms = light.observe(x)  # type: ignore[operator]
    hidden = ACTIVATIONS[name](chain[0](x))
    assert torch.equal(out, light(x))
    torch.testing.assert_close(norms[:, 2], hidden.norm(dim=1), rtol=1e-5, atol=0.0)


CHAINS: list[Any] = [LowRank(4), Pruned(0.9), Int8(weight_bits=7)]
CHAINS += [pytest.param(BFloat16(), marks=needs_bf16)]


@pytest.mark.parametrize("form", CHAINS, ids=str)
def test_other_layers_keep_their_activations(form: Precision) -> None:
    light = form.fit(block(nn.GELU()), torch.randn(90, 64))
    assert [type(m) for m in light.get_submodule("activations").children()] == [nn.GELU, nn.Tanh, nn.Identity]


@needs_bf16
def test_in_bfloat16_the_activation_sees_what_was_not_yet_rounded() -> None:
    chain, x = block(nn.GELU()), torch.randn(37, 64)
    light = BFloat16(packed=True).fit(chain)
    assert [m.pointwise for m in light.get_submodule("layers").children()] == ["gelu", "none", "none"]
    wanted = exact(chain, x)
    assert float((light(x) - wanted).norm()) < 0.01 * float(wanted.norm())


def test_the_block_is_not_touched() -> None:
    chain = block(nn.ReLU())
    before = [type(m) for m in chain]
    Prepacked().fit(chain)
    assert [type(m) for m in chain] == before
