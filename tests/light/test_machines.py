"""What the forms and the default ladder take on machines that have other instructions."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from dendrofx import Capability
from dendrofx.graph.block import BlockData
from dendrofx.light import BFloat16, Int8, LightForm, LowRank, Pruned
from dendrofx.runtime.fused_int8 import FusedInt8Linear
from dendrofx.runtime.int8 import Int8Linear
from dendrofx.search.search_space import default_lights, default_precisions
from tests.rungs import HERE, needs_fbgemm, refusal

VNNI = Capability("x86_64", avx2=True, avx512=True, vnni=True, bf16=False, amx=False, int8_exact=True, fbgemm=True)
AVX2 = replace(VNNI, avx512=False, vnni=False)
ARM = replace(AVX2, architecture="aarch64", avx2=False, fbgemm=False)
INEXACT = replace(VNNI, int8_exact=False)
SEVEN, HALF = Int8(weight_bits=7), [BFloat16(packed=True), BFloat16()]


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> list[Capability]:
    """What the forms and the ladder are told this machine is: the last of the list."""
    told = [HERE]
    for place in ("light.int8", "light.bfloat16", "search.search_space"):
        monkeypatch.setattr(f"dendrofx.{place}.capability", lambda: told[-1])
    return told


@needs_fbgemm
@pytest.mark.parametrize(("machine", "form", "kind"), [
    (VNNI, Int8(), Int8Linear),
    (VNNI, SEVEN, Int8Linear),
    (AVX2, SEVEN, FusedInt8Linear),
    (replace(AVX2, int8_exact=False), SEVEN, FusedInt8Linear),
    (INEXACT, SEVEN, FusedInt8Linear),
    (ARM, SEVEN, Int8Linear),
], ids=str)  # fmt: skip
def test_the_kernel_is_chosen_by_what_the_cpu_has(
    machines: list[Capability], machine: Capability, form: Int8, kind: type[nn.Module]
) -> None:
    machines.append(machine)
    assert type(form.fit(nn.Linear(8, 4)).get_submodule("layers.0")) is kind


def test_full_weights_are_refused_without_vnni(machines: list[Capability]) -> None:
    machines.append(AVX2)
    wanted = f"without it, sums of 8-bit products overflow (this is {AVX2}); take Int8(weight_bits=7)"
    assert refusal(Int8().fit, nn.Linear(8, 4)) == f"Int8() needs a CPU with VNNI: {wanted}"


@pytest.mark.parametrize(("machine", "wanted"), [
    (VNNI, [Int8()]),
    (AVX2, [SEVEN]),
    (ARM, []),
    (replace(VNNI, bf16=True), [Int8(), *HALF]),
    (replace(AVX2, bf16=True), [SEVEN, *HALF]),
    (INEXACT, [SEVEN]),
], ids=str)  # fmt: skip
def test_the_ladder_offers_what_is_fast(
    machines: list[Capability], machine: Capability, wanted: list[LightForm]
) -> None:
    machines.append(machine)
    assert default_precisions() == wanted


def test_the_ladder_begins_with_the_precision_alone(machines: list[Capability]) -> None:
    machines.append(AVX2)
    block = nn.Sequential(nn.Linear(24, 48), nn.ReLU(), nn.Linear(48, 24))
    lights = default_lights(BlockData(block, torch.randn(9, 24)))
    assert lights[:2] == [SEVEN, Int8(weight_bits=7, smooth=0.5)]
    assert {f.precision for f in lights if isinstance(f, LowRank | Pruned)} == {None, SEVEN}
