"""What every rung of low precision promises, alone or under a structural form: batches, odd rows, TorchScript."""

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dendrofx.errors import InputError
from dendrofx.light import BFloat16, Int8, LightForm, LowRank, Prepacked, Pruned, Transposed
from tests.round_trips import reloaded
from tests.rungs import exact, relative, rungs

WIDTH, OUT = 64, 48
FORMS = rungs(
    Int8(),
    Int8(weight_bits=7),
    Int8(smooth=0.5),
    BFloat16(),
    BFloat16(packed=True),
    Prepacked(),
    Transposed(),
    LowRank(24, precision=Int8()),
    LowRank(24, precision=BFloat16(packed=True)),
    Pruned(0.99, precision=Int8(weight_bits=7)),
    Pruned(0.99, precision=BFloat16()),
    LowRank(24, precision=Int8(weight_bits=7)),
    Int8(weight_bits=7, smooth=0.5),
)
# One row in another batch. Int8's products are exact; a float32 sum may round otherwise, which now and then tips an
# entry from one bfloat16 number to the next.
OTHER_BATCH = {8: 0.0, 16: 1e-3, 32: 3e-6}


def chain() -> nn.Sequential:
    """Nearly of rank 20, so that the structural forms are close to it."""
    block = nn.Sequential(nn.Linear(WIDTH, 96), nn.ReLU(), nn.Linear(96, OUT)).requires_grad_(False)
    for layer in (block[0], block[2]):
        low = torch.randn(layer.out_features, 20) @ torch.randn(20, layer.in_features)
        layer.weight.copy_(low / 20 / layer.in_features**0.5)
    return block


def fitted(form: LightForm, block: nn.Module | None = None) -> nn.Module:
    return form.fit(block or chain(), torch.randn(300, WIDTH))


def other_batch(light: nn.Module) -> float:
    """The bound on a row's relative difference between batches, by the widest operand."""
    return OTHER_BATCH[max(getattr(m, "bits", 0) for m in light.modules())]


def assert_close_rows(light: nn.Module, got: Tensor, wanted: Tensor) -> None:
    assert float(relative(got, wanted).max()) <= other_batch(light)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rows", [0, 1, 2, 37, 700])
def test_any_number_of_rows(form: LightForm, rows: int) -> None:
    light, x = fitted(form), torch.randn(rows, WIDTH)
    got = light(x)
    assert (got.shape, got.dtype, got.requires_grad, light.training) == ((rows, OUT), torch.float32, False, False)
    if rows:
        assert_close_rows(light, got, torch.cat([light(r) for r in x.split(1)]))


@pytest.mark.parametrize("form", FORMS)
def test_a_chain_is_close_to_the_block(form: LightForm) -> None:
    block, x = chain(), torch.randn(200, WIDTH)
    light = fitted(form, block)
    structure = 0.25 if isinstance(form, Pruned) else 0.02  # what leaving units out costs, and precision
    assert float(relative(light(x), exact(block, x)).mean()) < structure


@pytest.mark.parametrize("form", FORMS)
def test_a_row_is_the_same_in_any_batch(form: LightForm) -> None:
    light, x = fitted(form), torch.randn(64, WIDTH)
    whole, order = light(x), torch.randperm(64)
    for size in (1, 7, 33, 64):
        assert_close_rows(light, torch.cat([light(part) for part in x.split(size)]), whole)
    assert_close_rows(light, light(x[order]), whole[order])
    assert torch.equal(light(x), whole)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("odd", [1e6, 1e-6, 0.0, math.nan, math.inf, -math.inf])
def test_an_odd_row_does_not_touch_the_others(form: LightForm, odd: float) -> None:
    light, x = fitted(form), torch.randn(20, WIDTH)
    among = x.clone()
    among[3], among[11, 5] = odd, odd
    others = [i for i in range(20) if i not in (3, 11)]
    assert torch.equal(light(among)[others], light(x)[others])  # the same row count: the same bits


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_rows_that_are_not_finite_stay_so(form: LightForm, bad: float) -> None:
    light, x = fitted(form, nn.Linear(WIDTH, OUT) if not isinstance(form, Pruned) else None), torch.randn(9, WIDTH)
    x[2], x[5, 7] = bad, bad
    got = light(x)
    assert got.isfinite().all(1).tolist() == [i not in (2, 5) for i in range(9)]


@pytest.mark.parametrize("form", FORMS)
def test_zero_and_denormal_rows_give_what_zero_gives(form: LightForm) -> None:
    block = chain()
    light = fitted(form, block)
    x = torch.cat([torch.zeros(2, WIDTH), torch.randn(2, WIDTH) * 1e-40])
    got = light(x)
    assert torch.equal(got[0], got[1])
    torch.testing.assert_close(got, got[:1].expand_as(got), rtol=0.0, atol=1e-30)
    if not isinstance(form, Pruned | LowRank):
        assert float(relative(got, exact(block, x)).max()) < 0.02


@pytest.mark.parametrize("form", FORMS)
def test_scripted_saved_loaded_and_frozen_give_the_same_bits(form: LightForm) -> None:
    light = fitted(form)
    scripted = torch.jit.script(light)
    loaded = reloaded(scripted)
    frozen = torch.jit.freeze(reloaded(scripted).eval())
    for rows in (0, 1, 5, 64, 530):
        x = torch.randn(rows, WIDTH)
        for module in (scripted, loaded, frozen):
            for _ in range(3):  # TorchScript optimises on the second call
                assert torch.equal(module(x), light(x))


@pytest.mark.parametrize("form", FORMS)
def test_copies_and_pickles_give_the_same_bits(form: LightForm) -> None:
    light, x = fitted(form), torch.randn(30, WIDTH)
    for other in (copy.deepcopy(light), pickle.loads(pickle.dumps(light))):
        assert torch.equal(other(x), light(x))
        assert torch.equal(torch.jit.script(other)(x), light(x))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["eager", "scripted", "frozen"])
def test_rows_that_require_gradients(form: LightForm, kind: str) -> None:
    light, x = fitted(form), torch.randn(9, WIDTH)
    made: dict[str, Any] = {"eager": light, "scripted": torch.jit.script(light)}
    made["frozen"] = torch.jit.freeze(made["scripted"])
    for _ in range(3):  # oneDNN may take its kernel for training, which sums in another order
        assert_close_rows(light, made[kind](x.clone().requires_grad_()).detach(), light(x))


@pytest.mark.parametrize("form", FORMS)
def test_the_layout_of_the_rows_does_not_matter_and_they_are_not_written_to(form: LightForm) -> None:
    light, x = fitted(form), torch.randn(2 * WIDTH, 40)
    for view in (x[:WIDTH].t(), x.t()[:, ::2], x.t()[:, :WIDTH], x.t().contiguous()[5:, WIDTH:]):
        before = view.clone()
        assert torch.equal(light(view), light(view.contiguous()))
        assert torch.equal(view, before)


@pytest.mark.parametrize("form", FORMS)
def test_the_layout_of_a_single_row_does_not_matter(form: LightForm) -> None:
    """The strides of a dimension of size 1 are arbitrary; oneDNN's integer product gives garbage for some of them."""
    light, x = fitted(form), torch.randn(WIDTH, 9)
    scripted = torch.jit.script(light)
    for view in (x.t()[3:4], x[:, 3:4].t(), x[:, 0].as_strided((1, WIDTH), (0, 9)), x.reshape(3, -1)[1:2, ::3]):
        wanted = light(torch.cat([view, view]))[:1]
        for made in (light, scripted, scripted):
            assert_close_rows(light, made(view), wanted)
            assert form == Transposed() or torch.equal(made(view), wanted)  # BLAS has another product for one row


CODES = rungs(*(LowRank(1, precision=p) for p in (Int8(), Int8(weight_bits=7), BFloat16())))


@pytest.mark.parametrize("form", [*FORMS[:6], *CODES])
def test_linears_of_one_input_or_one_output(form: LightForm) -> None:
    """A single column or row of weights, also as the code of a `LowRank(1)`."""
    for fan_in, fan_out in ((1, 40), (40, 1), (1, 1), (2, 2)):
        block, x = nn.Linear(fan_in, fan_out), torch.randn(50, fan_in)
        got, wanted = form.fit(block, torch.randn(90, fan_in))(x), exact(block, x)
        assert float((got - wanted).norm()) < 0.06 * float(wanted.norm())
    low = nn.Linear(30, 40, bias=False)
    with torch.no_grad():
        low.weight.copy_(torch.randn(40, 1) @ torch.randn(1, 30))
    x = torch.randn(50, 30)
    assert float((form.fit(low, torch.randn(90, 30))(x) - exact(low, x)).norm()) < 0.03 * float(exact(low, x).norm())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(5, 7), (0, WIDTH), (WIDTH,), (2, 3, WIDTH)])
def test_rows_that_do_not_fit(form: LightForm, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError) as error:
        form.fit(chain(), torch.zeros(shape))
    assert str(error.value) == f"calibration rows are shaped {shape}; {form} takes (N >= 1, {WIDTH})"
