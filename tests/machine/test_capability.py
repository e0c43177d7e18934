"""What a CPU can do, on this one and on lesser ones that oneDNN and torch are told to be."""

import json
import os
import platform
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import dendrofx
from dendrofx import Capability, capability
from dendrofx.light import BFloat16, Int8, LowRank, Pruned
from dendrofx.light.form import LightForm

HERE = capability()
CAPS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "FBGEMM_ENABLE_INSTRUCTIONS")
CAPPED = any(os.environ.get(c) for c in CAPS)
FULL = Capability("x86_64", avx2=True, avx512=True, vnni=True, bf16=True, amx=False, int8_exact=True, fbgemm=True)
LESSER: dict[str, dict[str, str]] = {
    "AVX-512 without VNNI": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "FBGEMM_ENABLE_INSTRUCTIONS": "AVX512"},
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "FBGEMM_ENABLE_INSTRUCTIONS": "AVX2"},
    "VNNI without bfloat16": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"},
}
NO_VNNI = ["AVX-512 without VNNI", "AVX2"]
x86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the caps are those of x86")

PROBE = """
import json
import torch
from torch import nn
import dendrofx
from dataclasses import asdict
from dendrofx import BFloat16, Int8, LowRank, Prepacked, Pruned
from dendrofx.runtime.fused_int8 import FusedInt8Linear

torch.set_num_threads(1)
here = dendrofx.capability()
torch.manual_seed(0)
block = nn.Sequential(nn.Linear(256, 320), nn.ReLU(), nn.Linear(320, 192)).requires_grad_(False)
linear, rows, x = nn.Linear(1024, 512).requires_grad_(False), torch.randn(400, 256), torch.randn(100, 256)
exact = lambda m, x: (m.double()(x.double()), m.float())[0]
error = lambda got, wanted: float(((got - wanted).norm(dim=1) / wanted.norm(dim=1)).mean())

def tried(form):
    try:
        return error(form.fit(block, rows)(x), exact(block, x))
    except dendrofx.InputError as refused:
        return str(refused)

seven, wide = Int8(weight_bits=7), torch.randn(100, 1024)
signs = lambda *shape: torch.randint(0, 2, shape) * 2 - 1
products = [
    ((127 * a).to(torch.int8), (64 * w).to(torch.int8))
    for n in (1, 5, 33, 64) for k in (64, 1000, 4096)
    for a, w in ((signs(n, k), signs(48, k)), (torch.ones(n, k), torch.ones(48, k)), (-torch.ones(n, k), signs(48, k)))
]
layers = [FusedInt8Linear(w.to(torch.int8), torch.full([48], 127.0), None, None) for _, w in products[: here.fbgemm * 99]]
print(json.dumps({
    "kernel": type(seven.fit(linear).layers[0]).__name__,
    "fused exact": all(torch.equal(m.multiply(q / 127), (q.long() @ w.long().t()).float()) for m, (q, w) in zip(layers, products)),
    "capability": asdict(here),
    "text": str(here),
    "seven": error(seven.fit(linear)(wide), exact(linear, wide)),
    "exact": all(torch.equal(torch._int_mm(q, w.t()).long(), q.long() @ w.long().t()) for q, w in products),
    **{str(f): tried(f) for f in (
        Int8(), seven, BFloat16(), BFloat16(packed=True), Prepacked(), LowRank(192), LowRank(80, precision=Int8()),
        LowRank(80, precision=BFloat16()), LowRank(80, precision=seven), Pruned(1.0), Pruned(1.0, precision=Int8()),
        Pruned(1.0, precision=seven),
    )},
}))
"""


@cache
def probed(name: str) -> dict[str, Any]:
    """What another process finds under those caps."""
    env = {k: v for k, v in os.environ.items() if k not in CAPS} | LESSER[name]
    root = Path(dendrofx.__file__).parents[1]
    command = [sys.executable, "-W", "ignore", "-c", PROBE]
    run = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return dict(json.loads(run.stdout))


def test_fields_and_types() -> None:
    fields = asdict(HERE)
    assert list(fields) == ["architecture", "avx2", "avx512", "vnni", "bf16", "amx", "int8_exact", "fbgemm"]
    assert fields.pop("architecture") == platform.machine()
    assert all(type(v) is bool for v in fields.values())
    assert capability() == HERE


@x86
@pytest.mark.skipif(CAPPED, reason="this process is capped")
def test_it_says_what_the_system_says() -> None:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        pytest.skip("needs /proc/cpuinfo")
    flags = set(
        next(line for line in info.read_text(encoding="utf-8").splitlines() if line.startswith("flags")).split()
    )
    assert HERE.vnni == ("avx512_vnni" in flags)
    assert HERE.bf16 == ("avx512_bf16" in flags)
    assert HERE.avx2 == ("avx2" in flags)
    assert HERE.int8_exact or not HERE.vnni


def test_it_prints_what_is_there() -> None:
    assert str(FULL) == "x86_64 with avx2, avx512, vnni, bf16"
    assert str(replace(FULL, bf16=False, vnni=False, avx512=False)) == "x86_64 with avx2"
    bare = Capability("aarch64", avx2=False, avx512=False, vnni=False, bf16=False, amx=False, int8_exact=True)
    assert str(bare) == "aarch64 with no vector extensions"


def test_differs_names_each_field() -> None:
    assert FULL.differs(FULL) == ""
    other = replace(FULL, vnni=False, int8_exact=False)
    assert FULL.differs(other) == "vnni True here, False there, int8_exact True here, False there"
    assert FULL.differs(replace(FULL, architecture="arm64")) == "architecture x86_64 here, arm64 there"


FORMS_AND_FLAGS: list[tuple[LightForm, bool]] = [
    (Int8(), HERE.vnni and HERE.int8_exact),
    (Int8(weight_bits=7), True),
    (BFloat16(), HERE.bf16),
    (BFloat16(packed=True), HERE.bf16),
    (LowRank(2, precision=BFloat16()), HERE.bf16),
    (Pruned(precision=Int8()), HERE.vnni and HERE.int8_exact),
    (LowRank(2), True),
]


@pytest.mark.parametrize(("form", "taken"), FORMS_AND_FLAGS, ids=[str(f) for f, _ in FORMS_AND_FLAGS])
def test_forms_are_refused_by_what_is_here(form: LightForm, taken: bool) -> None:
    linear = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 8))
    with nullcontext() if taken else pytest.raises(dendrofx.InputError, match="needs a CPU with"):
        form.fit(linear, torch.randn(9, 8))


# ------------------------------------------------------------------------------------------------------ lesser CPUs


@pytest.mark.slow
@x86
@pytest.mark.parametrize("name", NO_VNNI)
def test_without_vnni_full_weights_are_refused_by_name(name: str) -> None:
    found = probed(name)
    assert not any(found["capability"][k] for k in ("vnni", "bf16", "amx"))
    assert found["capability"]["avx512"] == (torch.cpu._is_avx512_supported() and name != "AVX2")
    if HERE.vnni:  # elsewhere the product of full operands may be slow and right
        assert not found["capability"]["int8_exact"]
    wanted = "Int8() needs a CPU with VNNI: without it, sums of 8-bit products overflow"
    wanted += f" (this is {found['text']}); take Int8(weight_bits=7)"
    for form in (
        "Int8()",
        "LowRank(rank=80, basis='weight', precision=Int8())",
        "Pruned(energy=1.0, precision=Int8())",
    ):
        assert found[form] == wanted


@pytest.mark.slow
@x86
@pytest.mark.parametrize("name", LESSER)
def test_without_native_bfloat16_it_is_refused(name: str) -> None:
    found = probed(name)
    assert found["capability"]["bf16"] is False
    for form in ("BFloat16()", "BFloat16(packed=True)"):
        assert (
            found[form] == f"{form} needs a CPU with native bfloat16 products (AVX-512 BF16); this is {found['text']}"
        )
    assert found["LowRank(rank=80, basis='weight', precision=BFloat16())"] == found["BFloat16()"]


@x86
@pytest.mark.slow
@pytest.mark.parametrize("name", LESSER)
def test_seven_bits_are_exact_and_close_on_every_cpu(name: str) -> None:
    found = probed(name)
    assert found["exact"]
    assert found["fused exact"]
    capable = found["capability"]
    fast = capable["fbgemm"] and not (capable["vnni"] and capable["int8_exact"])
    assert found["kernel"] == ("FusedInt8Linear" if fast else "Int8Linear")
    assert 0.005 < found["seven"] < 0.0125
    assert found["Int8(weight_bits=7)"] < 0.025
    assert found["Pruned(energy=1.0, precision=Int8(weight_bits=7))"] < 0.025


@x86
@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n == "AVX2" else pytest.mark.slow) for n in LESSER])
def test_float32_forms_run_on_every_cpu(name: str) -> None:
    found = probed(name)
    for form in ("Prepacked()", "LowRank(rank=192, basis='weight')", "Pruned(energy=1.0)"):
        assert found[form] < 1e-5


@x86
@pytest.mark.skipif(CAPPED or not HERE.vnni, reason=f"needs VNNI and no cap on this process; this is {HERE}")
def test_vnni_without_bfloat16_takes_full_weights() -> None:
    found = probed("VNNI without bfloat16")
    assert found["capability"] == asdict(replace(HERE, bf16=False, amx=False))
    assert found["Int8()"] < 0.02
    assert found["Pruned(energy=1.0, precision=Int8())"] < 0.02
