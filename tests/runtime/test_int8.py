"""The kernels under `Int8`: exact integers, one function, a row's own bits in any batch, and fbgemm's engines."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dendrofx.runtime.fbgemm import LARGEST_WEIGHT, fbgemm_exact, pack
from dendrofx.runtime.fused_int8 import FusedInt8Linear
from dendrofx.runtime.int8 import Int8Layer, Int8Linear
from tests.round_trips import reloaded
from tests.rungs import HERE, needs_fbgemm, needs_vnni, whole_numbers

KERNELS = [
    pytest.param(Int8Linear, 127, id="_int_mm, 8 bits", marks=needs_vnni),
    pytest.param(Int8Linear, 64, id="_int_mm, 7 bits"),
    pytest.param(FusedInt8Linear, 64, id="fbgemm, 7 bits", marks=needs_fbgemm),
]
SHAPES = [(1, 1), (1, 40), (40, 1), (2, 9), (33, 77), (64, 48), (300, 17), (384, 1536), (4096, 64)]
ROUNDINGS = 4 * 2.0**-24  # of the sum, the scale, and its two products, each half a unit in the last place of float32
Kind = type[Int8Layer]


def layer_of(kind: Kind, most: int, shape: tuple[int, int], bias: bool = True) -> Int8Layer:
    """Random weights of -most to most."""
    weight = torch.randint(-most, most + 1, (shape[1], shape[0])).to(torch.int8)
    return kind(weight, torch.rand(shape[1]) + 0.01, torch.randn(shape[1]) if bias else None, None).eval()


def exact_sums(q: Tensor, weight: Tensor) -> np.ndarray:
    return q.numpy().astype(np.int64) @ weight.numpy().astype(np.int64).T


# -------------------------------------------------------------------------------------------------------- the integers


@pytest.mark.parametrize(("kind", "most"), KERNELS)
@pytest.mark.parametrize("rows", [1, 3, 16, 17, 64, 300])
@pytest.mark.parametrize("fan_in", [2, 5, 64, 1000, 4096])
def test_the_product_is_exact_for_the_largest_operands(kind: Kind, most: int, rows: int, fan_in: int) -> None:
    a, b = (torch.randint(0, 2, shape) * 2 - 1 for shape in ((rows, fan_in), (40, fan_in)))
    for row_sign, weight_sign in ((a, b), (a.abs(), b.abs()), (a.abs(), -b.abs()), (-a.abs(), b.abs())):
        q, weight = 127 * row_sign, (most * weight_sign).to(torch.int8)
        layer = kind(weight, torch.full([40], 127.0), None, None)  # whose scales are 1
        taken = q.to(torch.int8) if kind is Int8Linear else row_sign.float()
        got = layer.product(taken, torch.ones(rows, 1)).numpy()
        assert np.array_equal(got, exact_sums(q, weight).astype(np.float32))


@needs_fbgemm
@pytest.mark.skipif(torch.cpu._is_vnni_supported(), reason="VNNI adds in 32 bits")
def test_one_more_than_the_largest_weight_saturates() -> None:
    """Why it is 64 and not 65. When this fails, a larger weight is right too."""
    rows = torch.ones(8, 64)
    for most, right in ((LARGEST_WEIGHT, True), (LARGEST_WEIGHT + 1, False)):
        weight = torch.full((32, 64), most, dtype=torch.int8)
        got = FusedInt8Linear(weight, torch.full([32], 127.0), None, None).multiply(rows)
        assert torch.equal(got, torch.full((8, 32), 127.0 * 64 * most)) is right


@pytest.mark.parametrize(("kind", "most"), KERNELS)
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_quantisation_in_float64(kind: Kind, most: int, shape: tuple[int, int]) -> None:
    for bias in (True, False):
        layer = layer_of(kind, most, shape, bias)
        x = torch.randn(70, shape[0]) * torch.logspace(-20, 20, 70)[:, None]
        q, largest = whole_numbers(layer, x)
        assert torch.equal(largest, x.abs().amax(1, keepdim=True))
        assert float((q - 127 * x.double() / largest).abs().max()) <= 0.5 + 1e-4  # a half may go either way
        product = exact_sums(q, layer.weight) * (largest.double() / 127 * layer.step()).numpy()
        added = layer.bias.double().numpy() if layer.bias is not None else 0.0
        off = np.abs(layer(x).double().numpy() - (product + added))
        assert (off <= ROUNDINGS * (np.abs(product) + np.abs(added))).all()


@needs_fbgemm
@pytest.mark.parametrize("shape", SHAPES)
def test_both_kernels_are_one_function(shape: tuple[int, int]) -> None:
    """On rows without halves, which may round either way."""
    fused = layer_of(FusedInt8Linear, 64, shape)
    other = Int8Linear(fused.weight, fused.scale, fused.bias, None)
    x = torch.randint(-126, 127, (50, shape[0])) + 0.8 * torch.rand(50, shape[0]) - 0.4
    x[:, 0] = 127.0
    x *= torch.logspace(-6, 6, 50)[:, None]
    assert torch.equal(whole_numbers(fused, x)[0], whole_numbers(other, x)[0])
    assert fused.bias is not None
    size = x.abs().amax(1, keepdim=True) * fused.scale * fused.weight.float().norm(dim=1) + fused.bias.abs()
    assert bool(((fused(x) - other(x)).abs() <= 1e-6 * size * shape[0] ** 0.5).all())


@pytest.mark.parametrize(("kind", "most"), KERNELS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_row_has_its_own_bits(kind: Kind, most: int, shape: tuple[int, int]) -> None:
    layer, x = layer_of(kind, most, shape), torch.randn(140, shape[0])
    x[9] *= 1e6
    x[10], x[11] = float("nan"), 0.0
    whole, order = layer(x), torch.randperm(140)
    wanted = whole.nan_to_num()
    for rows in (1, 2, 3, 5, 8, 13, 16, 33, 64, 97, 121, 139):
        assert torch.equal(layer(x[:rows]).nan_to_num(), wanted[:rows])
        assert torch.equal(layer(x[order[:rows]]).nan_to_num(), wanted[order[:rows]])
    torch.set_num_threads(2)
    try:
        assert torch.equal(layer(x).nan_to_num(), wanted)
    finally:
        torch.set_num_threads(1)


# ------------------------------------------------------------------------------------------------------ fbgemm's engines


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Whatever a test sets is put back."""
    monkeypatch.setattr(torch.backends.quantized, "engine", torch.backends.quantized.engine)
    return monkeypatch


@pytest.mark.skipif(HERE.architecture not in ("x86_64", "AMD64"), reason="fbgemm is a library for x86")
def test_fbgemm_is_found_where_torch_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert HERE.fbgemm == fbgemm_exact()
    assert HERE.fbgemm or not HERE.avx2
    monkeypatch.setattr("dendrofx.runtime.fbgemm.ENGINE", "none of them")
    assert fbgemm_exact.__wrapped__() is False


@needs_fbgemm
@pytest.mark.parametrize("name", torch.backends.quantized.supported_engines)
def test_whatever_engine_is_set_fbgemm_packs_and_the_engine_stays(name: str, engine: pytest.MonkeyPatch) -> None:
    given, x = layer_of(FusedInt8Linear, 64, (64, 48)), torch.randn(5, 64)
    wanted = given(x)
    engine.setattr(torch.backends.quantized, "engine", name)
    layer = FusedInt8Linear(given.weight, given.scale, given.bias, given.shrink)
    for made in (layer, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), torch.jit.script(layer)):
        assert torch.equal(made(x), wanted)
    with pytest.raises(RuntimeError):
        pack(torch.zeros(3, dtype=torch.int8), torch.ones(3))
    assert torch.backends.quantized.engine == name


@needs_fbgemm
def test_loaded_under_an_engine_without_the_product_it_says_so(engine: pytest.MonkeyPatch) -> None:
    scripted = torch.jit.script(layer_of(FusedInt8Linear, 64, (64, 48)))
    engine.setattr(torch.backends.quantized, "engine", "onednn")
    with pytest.raises(RuntimeError, match="is not implemented for this packed parameter type"):
        reloaded(scripted)(torch.randn(5, 64))


LOAD = """
import sys, torch
for name in sys.argv[1:]:
    print(float(torch.jit.load(name)(torch.ones(3, 64)).double().sum()))
assert not any(name.startswith("dendrofx") for name in sys.modules)
"""
FIT = "import dendrofx, torch; dendrofx.Int8(weight_bits=7).fit(torch.nn.Linear(8, 4))"


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", *command], cwd=folder, capture_output=True, text=True, check=False)


@needs_fbgemm
def test_it_loads_without_dendrofx(tmp_path: Path) -> None:
    layer = layer_of(FusedInt8Linear, 64, (64, 48))
    scripted, wanted = torch.jit.script(layer), float(layer(torch.ones(3, 64)).double().sum())
    torch.jit.save(scripted, tmp_path / "a.pt")
    torch.jit.save(torch.jit.freeze(scripted), tmp_path / "b.pt")
    done = run(tmp_path, "ignore", "-c", LOAD, "a.pt", "b.pt")
    assert done.returncode == 0, done.stderr
    assert [float(line) for line in done.stdout.split()] == [wanted, wanted]


@needs_fbgemm
def test_fitting_warns_of_nothing() -> None:
    """In a process of its own: torch says once a process that quantised tensors will go."""
    done = run(Path(__file__).parents[2], "error", "-c", FIT)
    assert (done.returncode, done.stderr) == (0, "")
