"""fbgemm's kernel: where it is taken, and how its weights are laid out, saved and laid out again."""

import copy
import io
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from dendrofx import Capability, InputError
from dendrofx.graph.block import BlockData
from dendrofx.light import BFloat16, Int8, LowRank, Pruned
from dendrofx.runtime.fbgemm import fbgemm_exact, pack
from dendrofx.runtime.fused_int8 import FusedInt8Linear
from dendrofx.runtime.int8 import Int8Linear
from dendrofx.search.ladder import default_lights, default_precisions
from tests.rungs import HERE, needs_fbgemm, reloaded

ROOT = Path(__file__).parents[2]


def fused(bias: bool = True, shrink: bool = True, seed: int = 0, width: int = 64, out: int = 48) -> FusedInt8Linear:
    g = torch.Generator().manual_seed(seed)
    weight = torch.randint(-64, 65, (out, width), generator=g).to(torch.int8)
    parts = (torch.randn(out, generator=g) if bias else None, torch.rand(width, generator=g) if shrink else None)
    return FusedInt8Linear(weight, torch.rand(out, generator=g), *parts).eval()


# ----------------------------------------------------------------------------------------------------- which one is taken

VNNI = Capability("x86_64", avx2=True, avx512=True, vnni=True, bf16=False, amx=False, int8_exact=True, fbgemm=True)
AVX2 = replace(VNNI, avx512=False, vnni=False)
ARM = replace(AVX2, architecture="aarch64", avx2=False, fbgemm=False)


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> list[Capability]:
    """What the forms and the ladder are told this machine is: the last of the list."""
    told = [HERE]
    for place in ("light.int8", "light.bfloat16", "search.ladder"):
        monkeypatch.setattr(f"dendrofx.{place}.capability", lambda: told[-1])
    return told


@needs_fbgemm
def test_the_kernel_is_chosen_by_what_the_cpu_has(machines: list[Capability]) -> None:
    linear = nn.Linear(8, 4)
    for machine, kind in ((VNNI, Int8Linear), (AVX2, FusedInt8Linear), (replace(AVX2, int8_exact=False), FusedInt8Linear),
                          (replace(VNNI, int8_exact=False), FusedInt8Linear), (ARM, Int8Linear)):  # fmt: skip
        machines.append(machine)
        assert type(Int8(weight_bits=7).fit(linear).get_submodule("layers.0")) is kind
    machines.append(VNNI)
    assert type(Int8().fit(linear).get_submodule("layers.0")) is Int8Linear
    machines.append(AVX2)
    with pytest.raises(InputError, match=r"needs a CPU with VNNI: .* take Int8\(weight_bits=7\)"):
        Int8().fit(linear)


def test_the_ladder_offers_what_is_fast(machines: list[Capability]) -> None:
    seven, half = Int8(weight_bits=7), [BFloat16(packed=True), BFloat16()]
    for machine, wanted in ((VNNI, [Int8()]), (AVX2, [seven]), (ARM, []), (replace(VNNI, bf16=True), [Int8(), *half]),
                            (replace(AVX2, bf16=True), [seven, *half]), (replace(VNNI, int8_exact=False), [seven])):  # fmt: skip
        machines.append(machine)
        assert default_precisions() == wanted
    machines.append(AVX2)
    lights = default_lights(
        BlockData(nn.Sequential(nn.Linear(24, 48), nn.ReLU(), nn.Linear(48, 24)), torch.randn(9, 24))
    )
    assert lights[:2] == [seven, Int8(weight_bits=7, smooth=0.5)]
    assert {f.precision for f in lights if isinstance(f, LowRank | Pruned)} == {None, seven}


@pytest.mark.skipif(HERE.architecture not in ("x86_64", "AMD64"), reason="fbgemm is a library for x86")
def test_fbgemm_is_found_where_torch_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert HERE.fbgemm == fbgemm_exact()
    assert HERE.fbgemm or not HERE.avx2
    monkeypatch.setattr("dendrofx.runtime.fbgemm.ENGINE", "none of them")
    assert fbgemm_exact.__wrapped__() is False


# ------------------------------------------------------------------------------------------------- packing and artifacts


@needs_fbgemm
@pytest.mark.parametrize("engine", torch.backends.quantized.supported_engines)
def test_whatever_engine_is_set_fbgemm_packs_and_the_engine_stays(engine: str) -> None:
    x, before = torch.randn(5, 64), torch.backends.quantized.engine
    wanted = fused()(x)
    torch.backends.quantized.engine = engine
    try:
        layer = fused()
        for made in (layer, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), torch.jit.script(layer)):
            assert torch.equal(made(x), wanted)
        with pytest.raises(RuntimeError):
            pack(torch.zeros(3, dtype=torch.int8), torch.ones(3))
        assert torch.backends.quantized.engine == engine
    finally:
        torch.backends.quantized.engine = before


@needs_fbgemm
def test_loaded_under_an_engine_without_the_product_it_says_so() -> None:
    scripted, before = torch.jit.script(fused()), torch.backends.quantized.engine
    torch.backends.quantized.engine = "onednn"
    try:
        with pytest.raises(RuntimeError, match="is not implemented for this packed parameter type"):
            reloaded(scripted)(torch.randn(5, 64))
    finally:
        torch.backends.quantized.engine = before


@needs_fbgemm
@pytest.mark.parametrize("parts", [(True, True), (True, False), (False, True), (False, False)])
def test_scripts_save_load_copy_and_freeze_in_any_order(parts: tuple[bool, bool]) -> None:
    layer, x = fused(*parts), torch.randn(9, 64)
    scripted = torch.jit.script(layer)
    frozen = torch.jit.freeze(scripted)
    loaded = reloaded(scripted)
    made = (
        scripted,
        loaded,
        reloaded(loaded),
        copy.deepcopy(scripted),
        frozen,
        reloaded(frozen),
        torch.jit.freeze(loaded.eval()),
    )
    for module in (*made, torch.jit.freeze(reloaded(frozen).eval())):
        for _ in range(3):  # TorchScript optimises on the second call
            assert torch.equal(module(x), layer(x))
    assert (loaded.macs, loaded.bits, loaded.converts, loaded.training) == (64 * 48, 8, 112, False)


@needs_fbgemm
def test_copies_pickles_and_saved_modules() -> None:
    for layer in (fused(), fused(bias=False, shrink=False).train()):
        buffer, x = io.BytesIO(), torch.randn(9, 64)
        torch.save(layer, buffer)
        buffer.seek(0)
        for other in (
            copy.copy(layer),
            copy.deepcopy(layer),
            pickle.loads(pickle.dumps(layer)),
            torch.load(buffer, weights_only=False),
        ):
            assert torch.equal(other(x), layer(x))
            assert other.training == layer.training
    assert copy.deepcopy(layer).weight.data_ptr() != layer.weight.data_ptr()


@needs_fbgemm
def test_a_loaded_state_is_laid_out_again() -> None:
    layer, other, x = fused(seed=1), fused(seed=2), torch.randn(9, 64)
    assert list(layer.state_dict()) == ["weight", "scale", "bias", "shrink"]
    assert not torch.equal(other(x), layer(x))
    assert str(other.load_state_dict(layer.state_dict())) == "<All keys matched successfully>"
    assert torch.equal(other(x), layer(x))


@needs_fbgemm
@pytest.mark.parametrize("freeze", [False, True])
def test_the_saved_file_holds_the_weights_once(freeze: bool) -> None:
    scripted = torch.jit.script(fused(width=1024, out=1024))
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.freeze(scripted) if freeze else scripted, buffer)
    assert buffer.tell() < 1.1 * 1024 * 1024


LOAD = """
import sys, torch
for name in sys.argv[1:]:
    print(float(torch.jit.load(name)(torch.ones(3, 64)).double().sum()))
assert not any(name.startswith("dendrofx") for name in sys.modules)
"""


@needs_fbgemm
def test_it_loads_without_dendrofx(tmp_path: Path) -> None:
    layer = fused()
    scripted, wanted = torch.jit.script(layer), float(layer(torch.ones(3, 64)).double().sum())
    torch.jit.save(scripted, tmp_path / "a.pt")
    torch.jit.save(torch.jit.freeze(scripted), tmp_path / "b.pt")
    command = [sys.executable, "-W", "ignore", "-c", LOAD, "a.pt", "b.pt"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert [float(line) for line in run.stdout.split()] == [wanted, wanted]


@needs_fbgemm
def test_fitting_warns_of_nothing() -> None:
    """In a process of its own: torch says once a process that quantised tensors will go."""
    code = "import dendrofx, torch; dendrofx.Int8(weight_bits=7).fit(torch.nn.Linear(8, 4))"
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")
