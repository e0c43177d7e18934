"""Prepacked, the packed Linear behind it, and the row counts that oneDNN sees."""

import copy
import io
import pickle
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dendrofx.graph.block import row_cost
from dendrofx.light import Prepacked
from dendrofx.runtime.branches import ObservedChain
from dendrofx.runtime.kernels import join_blocks, padded_rows, row_blocks
from dendrofx.runtime.packed import PackedLinear
from tests.rungs import exact, relative, reloaded

COUNTS = [*range(1, 21), *range(255, 261), *range(511, 516), 1100]


def packed(linear: nn.Linear) -> PackedLinear:
    light = Prepacked().fit(linear)
    assert isinstance(light, ObservedChain)
    layer = light.layers[0]
    assert isinstance(layer, PackedLinear)
    return layer


# ------------------------------------------------------------------------------------------------------- row counts


@pytest.mark.parametrize(("rows", "wanted"), [
    (0, 0), (1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (8, 8), (9, 12), (16, 16), (17, 20), (32, 32), (33, 40), (65, 80),
    (240, 240),
    (241, 256), (256, 256), (257, 320), (320, 320), (321, 384), (449, 512), (512, 512), (513, 513), (515, 516),
    (521, 524), (1024, 1024), (1027, 1028), (1100, 1104), (1300, 1344),
])  # fmt: skip
def test_padded_rows(rows: int, wanted: int) -> None:
    assert padded_rows(rows) == wanted
    assert torch.jit.script(padded_rows)(rows) == wanted


def test_padding_is_monotone_bounded_and_of_few_sizes() -> None:
    padded = [padded_rows(n) for n in range(5001)]
    assert all(a <= b for a, b in pairwise(padded))
    for rows, ran in enumerate(padded):
        waste = ran - rows
        assert 0 <= waste < (16 if rows % 512 <= 256 else 64)
        assert ran < max(2 * rows, 1 + rows)
        assert padded_rows(ran) == ran
    assert sum(padded) < 1.02 * sum(range(5001))
    sizes = {len(block) for n in range(1, 1500) for block in row_blocks(torch.empty(n, 1), torch.float32)}
    assert len(sizes) <= 60
    assert max(sizes) == 512


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", COUNTS)
def test_blocks_hold_the_rows_and_then_zeros(rows: int, dtype: torch.dtype) -> None:
    x = torch.randn(rows, 3)
    blocks = row_blocks(x, dtype)
    together = torch.cat(blocks)
    assert len(together) == padded_rows(rows)
    assert torch.equal(together[:rows], x.to(dtype))
    assert not bool(together[rows:].any())
    assert torch.equal(join_blocks(blocks, rows, 3), x.to(dtype).float())


# -------------------------------------------------------------------------------------------------------- the product


@pytest.mark.parametrize("shape", [(1024, 1024), (64, 300), (33, 100), (7, 3), (1, 40), (16, 1), (1, 1)])
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_linear_up_to_the_order_of_summation(shape: tuple[int, int], bias: bool) -> None:
    linear, x = nn.Linear(*shape, bias).requires_grad_(False), torch.randn(40, shape[0])
    x *= torch.logspace(-3, 3, 40)[:, None]
    got = Prepacked().fit(linear)(x)
    magnitude = x.double().abs() @ linear.weight.double().abs().t() + (linear.bias.double().abs() if bias else 0.0)
    for wanted in (exact(linear, x), F.linear(x, linear.weight, linear.bias)):
        assert bool(((got.double() - wanted).abs() <= 1e-6 * magnitude).all())
        assert float((got - wanted).norm()) < 1e-5 * float(wanted.norm())


def test_every_row_count_gives_what_no_padding_gives() -> None:
    linear, x = nn.Linear(64, 48), torch.randn(1100, 64)
    light, wanted = Prepacked().fit(linear), linear(x).detach()
    for rows in COUNTS:
        torch.testing.assert_close(light(x[:rows]), wanted[:rows], rtol=1e-5, atol=2e-6)


def test_a_row_differs_in_the_last_bits_in_another_batch() -> None:
    """Measured here: 7e-7 of the row's norm at 4096 -> 64 and 3072 -> 768, else 0; `F.linear` itself 9e-7."""
    for shape in ((4096, 64), (64, 48), (300, 17)):
        light, x = Prepacked().fit(nn.Linear(*shape)), torch.randn(600, shape[0])
        whole, order = light(x), torch.randperm(600)
        for rows in (1, 2, 7, 16, 65, 300, 513):
            assert float(relative(light(x[:rows]), whole[:rows]).max()) < 3e-6
            assert float(relative(light(x[order[:rows]]), whole[order[:rows]]).max()) < 3e-6


# ---------------------------------------------------------------------------------------------------- the packed Linear


def both() -> list[tuple[PackedLinear, Tensor]]:
    return [(packed(nn.Linear(64, 32, bias)), torch.randn(9, 64)) for bias in (True, False)]


def test_copies_and_pickles() -> None:
    for layer, x in both():
        for other in (copy.deepcopy(layer), copy.copy(layer), pickle.loads(pickle.dumps(layer))):
            assert torch.equal(other(x), layer(x))
            assert (other.macs, other.bits, other.pads) == (layer.macs, layer.bits, layer.pads) == (64 * 32, 32, True)
            assert (other.bias is None) == (layer.bias is None)
        assert copy.deepcopy(layer).plain.data_ptr() != layer.plain.data_ptr()


def test_torch_save() -> None:
    for layer, x in both():
        buffer = io.BytesIO()
        torch.save(layer, buffer)
        buffer.seek(0)
        assert torch.equal(torch.load(buffer, weights_only=False)(x), layer(x))


def test_a_script_saves_loads_copies_and_freezes_after_loading() -> None:
    for layer, x in both():
        scripted = torch.jit.script(layer)
        loaded = reloaded(scripted)
        again = reloaded(loaded)
        frozen = torch.jit.freeze(loaded.eval())
        for module in (scripted, loaded, again, copy.deepcopy(scripted), frozen):
            for _ in range(3):
                assert torch.equal(module(x), layer(x))
        assert (loaded.macs, loaded.bits, loaded.pads) == (64 * 32, 32, True)


def test_the_saved_file_holds_the_weight_once() -> None:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(packed(nn.Linear(256, 512))), buffer)
    assert buffer.tell() < 1.1 * 4 * 256 * 512


def test_a_frozen_one_cannot_be_saved() -> None:
    """The packed weight is a constant by then. When this fails, drop the advice to freeze after loading."""
    frozen = torch.jit.freeze(torch.jit.script(packed(nn.Linear(64, 32)).eval()))
    with pytest.raises(NotImplementedError, match="Cannot access storage of OpaqueTensorImpl"):
        torch.jit.save(frozen, io.BytesIO())


def test_it_keeps_the_weight_and_lays_out_a_copy() -> None:
    linear = nn.Linear(64, 32)
    layer = packed(linear)
    assert layer.plain.data_ptr() == linear.weight.data_ptr()
    assert layer.packed.is_mkldnn
    assert list(layer.state_dict()) == ["plain", "bias"]


def test_observe_gives_the_output_and_the_norm_twice() -> None:
    light, x = Prepacked().fit(nn.Linear(64, 8)), torch.randn(9, 64)
    out, norms = light.observe(x)  # type: ignore[operator]
    assert torch.equal(out, light(x))
    torch.testing.assert_close(norms, x.norm(dim=1, keepdim=True).expand(9, 2))


def test_it_counts_whole_multiply_adds_and_its_padding() -> None:
    light = Prepacked().fit(nn.Sequential(nn.Linear(10, 33), nn.ReLU(), nn.Linear(33, 5)))
    assert row_cost(light) == (495, 495, 495, 495)
    assert str(Prepacked()) == "Prepacked()"
