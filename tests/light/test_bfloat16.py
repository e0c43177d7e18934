"""BFloat16, plain and packed: its roundings by hand, entry by entry, and the row counts it is padded to."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dendrofx.graph.block import row_cost
from dendrofx.light import BFloat16
from dendrofx.runtime.branches import ObservedChain
from tests.rungs import exact, needs_bf16, relative, reloaded, rungs

pytestmark = needs_bf16
FORMS = rungs(BFloat16(), BFloat16(packed=True))
ROUNDING = 2.0**-8  # half a step of 8 significant bits
SUM = 1e-6  # float32 sums, relative to the sum of magnitudes
COUNTS = [*range(1, 21), *range(255, 261), *range(511, 516), 1100]


def rounded(values: Tensor) -> Tensor:
    return values.detach().to(torch.bfloat16).double()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bias", [True, False])
def test_error_on_gaussian_rows(form: BFloat16, bias: bool) -> None:
    linear, x = nn.Linear(1024, 1024, bias), torch.randn(300, 1024)
    error = relative(form.fit(linear)(x), exact(linear, x))
    assert 0.001 < float(error.mean()) < 0.003
    assert float(error.max()) <= 0.004


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(1024, 64), (64, 300), (33, 100), (7, 3), (1, 40), (16, 1), (1, 1)])
@pytest.mark.parametrize("bias", [True, False])
def test_rows_weights_and_result_are_rounded_and_nothing_else(
    form: BFloat16, shape: tuple[int, int], bias: bool
) -> None:
    linear, x = nn.Linear(*shape, bias), torch.randn(40, shape[0]) * torch.logspace(-3, 3, 40)[:, None]
    a, w = rounded(x), rounded(linear.weight)
    b = rounded(linear.bias) if bias else torch.zeros(1).double()
    wanted, magnitude = a @ w.t() + b, a.abs() @ w.abs().t() + b.abs()
    got = form.fit(linear)(x)
    assert torch.equal(rounded(got), got.double())
    assert bool(((got.double() - wanted).abs() <= ROUNDING * wanted.abs() + SUM * magnitude).all())


@pytest.mark.parametrize("form", FORMS)
def test_every_row_count_gives_what_no_padding_gives(form: BFloat16) -> None:
    linear, x = nn.Linear(64, 48), torch.randn(1100, 64)
    light = form.fit(linear)
    weight, bias = linear.weight.detach().bfloat16(), linear.bias.detach().bfloat16()
    for rows in COUNTS:
        wanted = F.linear(x[:rows].bfloat16(), weight, bias).float()
        assert light(x[:rows]).shape == (rows, 48)
        torch.testing.assert_close(light(x[:rows]), wanted, rtol=2 * ROUNDING, atol=1e-5)  # an entry may tip over


@pytest.mark.parametrize("form", FORMS)
def test_a_row_differs_little_in_another_batch(form: BFloat16) -> None:
    """Measured: 3e-8 of the row's norm at 3072 -> 768, where oneDNN's order of summation changes; else 0."""
    for shape in ((3072, 96), (64, 48), (300, 17)):
        light, x = form.fit(nn.Linear(*shape)), torch.randn(600, shape[0])
        whole, order = light(x), torch.randperm(600)
        for rows in (1, 2, 7, 16, 65, 300, 513):
            assert float(relative(light(x[:rows]), whole[:rows]).max()) < 1e-3
            assert float(relative(light(x[order[:rows]]), whole[order[:rows]]).max()) < 1e-3


@pytest.mark.parametrize("form", FORMS)
def test_large_and_small_rows_keep_their_relative_error(form: BFloat16) -> None:
    linear, x = nn.Linear(256, 128, bias=False), torch.randn(20, 256)
    for scale in (1e-30, 1e-10, 1e10, 1e30):
        assert float(relative(form.fit(linear)(x * scale), exact(linear, x * scale)).max()) < 0.005


def test_packing_changes_no_more_than_the_order_of_summation() -> None:
    block, x = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 32)), torch.randn(70, 64)
    plain, packed = BFloat16().fit(block), BFloat16(packed=True).fit(block)
    assert float(relative(packed(x), plain(x)).max()) < 1e-3


def test_a_frozen_plain_module_can_be_saved() -> None:
    light, x = BFloat16().fit(nn.Linear(64, 32)), torch.randn(9, 64)
    assert torch.equal(reloaded(torch.jit.freeze(torch.jit.script(light)))(x), light(x))


@pytest.mark.parametrize("form", FORMS)
def test_observe_gives_the_output_and_the_norm_twice(form: BFloat16) -> None:
    light, x = form.fit(nn.Linear(64, 8)), torch.randn(9, 64)
    out, norms = light.observe(x)  # type: ignore[operator]
    assert torch.equal(out, light(x))
    torch.testing.assert_close(norms, x.norm(dim=1, keepdim=True).expand(9, 2))


@pytest.mark.parametrize("form", FORMS)
def test_it_counts_sixteen_bits_and_its_padding(form: BFloat16) -> None:
    light = form.fit(nn.Sequential(nn.Linear(10, 33), nn.ReLU(), nn.Linear(33, 5)))
    assert row_cost(light) == (330 + 165, 165 + 83, 330 + 165, 165 + 83)
    assert isinstance(light, ObservedChain)


def test_it_prints() -> None:
    assert [str(p.values[0]) for p in FORMS] == ["BFloat16()", "BFloat16(packed=True)"]
    light = BFloat16().fit(nn.Linear(10, 33))
    assert isinstance(light, ObservedChain)
    assert repr(light.layers[0]) == "BFloat16Linear(10 -> 33, bfloat16)"
