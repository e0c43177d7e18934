"""The Linear whose weights are laid out for oneDNN, and the activations that its kernel applies to the result."""

import pytest
import torch
from torch import Tensor, nn

from dendrofx.light import BFloat16, Int8, LowRank, Precision, Prepacked, Pruned, Transposed
from dendrofx.runtime.packed import PackedLinear, fuse_activation
from tests.round_trips import reloaded
from tests.rungs import exact, needs_bf16, relative, rungs

# The kernel computes GELU by its own polynomials; float32 rounding of the product comes on top.
FUSED = 1e-6
ACTIVATIONS = [(nn.GELU(), "gelu", "none"), (nn.GELU("tanh"), "gelu", "tanh")]


def layer() -> PackedLinear:
    return PackedLinear(torch.randn(48, 64), torch.randn(48))


def block(activation: nn.Module) -> nn.Sequential:
    linears = nn.Linear(64, 96), nn.Linear(96, 48), nn.Linear(48, 40)
    return nn.Sequential(linears[0], activation, linears[1], nn.Tanh(), linears[2]).requires_grad_(False)


@pytest.mark.parametrize(("activation", "pointwise", "algorithm"), ACTIVATIONS, ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_fused_equals_unfused(activation: nn.Module, pointwise: str, algorithm: str, bias: bool) -> None:
    linear = nn.Linear(64, 48, bias).requires_grad_(False)
    plain = PackedLinear(linear.weight, linear.bias)
    made, after = fuse_activation(plain, activation)
    assert isinstance(made, PackedLinear)
    assert (type(after), made.pointwise, made.algorithm) == (nn.Identity, pointwise, algorithm)
    assert repr(made) == f"PackedLinear(64 -> 48, float32, packed, {pointwise})"
    for rows in (0, 1, 3, 17, 64, 530):
        x = torch.randn(rows, 64) * torch.logspace(-3, 2, rows)[:, None]
        wanted = plain(x)
        scale = 1 + wanted.abs().amax(1, keepdim=True) if rows else wanted
        assert bool(((made(x) - activation(wanted)).abs() <= FUSED * scale).all())
        off = made(x).double() - exact(nn.Sequential(linear, activation), x)
        assert bool((off.abs() <= 2 * FUSED * scale).all())


class Louder(nn.GELU):
    """A subclass may compute anything."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


OTHERS = [nn.Tanh(), nn.Sigmoid(), nn.SiLU(), nn.Identity(), nn.ReLU(), nn.ReLU(inplace=True), Louder()]


@pytest.mark.parametrize("activation", OTHERS, ids=str)
def test_other_activations_stay_and_a_second_one(activation: nn.Module) -> None:
    plain = layer()
    assert fuse_activation(plain, activation) == (plain, activation)
    once = fuse_activation(plain, nn.GELU("tanh"))[0]
    for second in (nn.GELU(), activation):
        assert fuse_activation(once, second) == (once, second)


@pytest.mark.parametrize("activation", [a for a, *_ in ACTIVATIONS], ids=str)
def test_a_chain_fuses_packed_linears(activation: nn.Module) -> None:
    chain, x = block(activation), torch.randn(37, 64)
    before = [type(m) for m in chain]
    light = Prepacked().fit(chain)
    assert [m.pointwise != "none" for m in light.get_submodule("layers").children()] == [True, False, False]
    assert [type(m) for m in light.get_submodule("activations").children()] == [nn.Identity, nn.Tanh, nn.Identity]
    torch.testing.assert_close(light(x), chain(x), rtol=0.0, atol=1e-5)
    assert [type(m) for m in chain] == before


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.GELU(), nn.Tanh()], ids=str)
def test_rows_that_are_not_finite_stay_so(activation: nn.Module) -> None:
    chain, x = block(activation), torch.randn(5, 64)
    x[1], x[3, 0] = float("nan"), float("inf")
    assert torch.equal(Prepacked().fit(chain)(x).isnan(), chain(x).isnan())


@pytest.mark.parametrize("form", rungs(LowRank(4), Pruned(0.9), Int8(weight_bits=7), BFloat16()))
def test_other_layers_keep_their_activations(form: Precision) -> None:
    light = form.fit(block(nn.GELU()), torch.randn(90, 64))
    assert [type(m) for m in light.get_submodule("activations").children()] == [nn.GELU, nn.Tanh, nn.Identity]


@needs_bf16
def test_in_bfloat16_the_activation_sees_what_was_not_yet_rounded() -> None:
    chain, x = block(nn.GELU()), torch.randn(37, 64)
    light = BFloat16(packed=True).fit(chain)
    assert [m.pointwise for m in light.get_submodule("layers").children()] == ["gelu", "none", "none"]
    assert float((light(x) - exact(chain, x)).norm()) < 0.01 * float(exact(chain, x).norm())
    chain = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 32))
    plain, packed = BFloat16().fit(chain)(x), BFloat16(packed=True).fit(chain)(x)
    assert float(relative(packed, plain).max()) < 1e-3  # no more than the order of summation


def test_a_transposed_one_keeps_its_layout_where_it_is_saved_and_frozen() -> None:
    layer = Transposed().fit(nn.Linear(64, 32)).get_submodule("layers.0")
    assert (str(layer), layer.weight.stride()) == ("TransposedLinear(64 -> 32, transposed)", (1, 32))
    loaded = reloaded(torch.jit.script(layer))
    assert loaded.weight.stride() == layer.weight.stride()
    (constant,) = [n.t("value") for n in torch.jit.freeze(loaded.eval()).graph.nodes() if n.outputsSize() == 1
                   and n.kind() == "prim::Constant" and n.hasAttribute("value") and n.kindOf("value") == "t"
                   and n.t("value").dim() == 2]  # fmt: skip
    assert constant.stride() == layer.weight.stride()


def test_it_keeps_the_weight_and_lays_out_a_copy() -> None:
    linear = nn.Linear(64, 32)
    made = Prepacked().fit(linear).get_submodule("layers.0")
    assert isinstance(made, PackedLinear)
    assert made.plain.data_ptr() == linear.weight.data_ptr()
    assert made.packed.is_mkldnn
    assert list(made.state_dict()) == ["plain", "bias"]
    assert (made.macs, made.bits, made.pads) == (64 * 32, 32, True)
