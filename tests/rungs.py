"""The rungs of low precision as test parameters, and what their tests compare with."""

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dendrofx
from dendrofx.light import BFloat16, Int8, LightForm
from dendrofx.runtime.fused_int8 import FusedInt8Linear
from dendrofx.runtime.int8 import Int8Layer

HERE = dendrofx.capability()
needs_vnni = pytest.mark.skipif(not (HERE.vnni and HERE.int8_exact), reason=f"8-bit weights need VNNI; this is {HERE}")
needs_fbgemm = pytest.mark.skipif(not HERE.fbgemm, reason=f"needs fbgemm; this is {HERE}")
needs_bf16 = pytest.mark.skipif(not HERE.bf16, reason=f"needs native bfloat16 products; this is {HERE}")


def rungs(*forms: LightForm) -> list[Any]:
    """The forms as parameters; one that this CPU has no instructions for is skipped, with the reason."""
    return [pytest.param(form, id=str(form), marks=_needs(form)) for form in forms]


def _needs(form: LightForm) -> list[pytest.MarkDecorator]:
    part = getattr(form, "precision", None) or form
    if isinstance(part, BFloat16):
        return [needs_bf16]
    return [needs_vnni] if part in (Int8(), Int8(smooth=getattr(part, "smooth", 0.0))) else []


def exact(block: nn.Module, x: Tensor) -> Tensor:
    """A Linear, or a chain of Linears and activations, in float64."""
    y = x.double()
    for layer in [block] if isinstance(block, nn.Linear) else block.children():
        if isinstance(layer, nn.Linear):
            y = y @ layer.weight.detach().double().t() + (0.0 if layer.bias is None else layer.bias.detach().double())
        else:
            y = layer(y)
    return y


def whole_numbers(layer: Int8Layer, x: Tensor) -> tuple[Tensor, Tensor]:
    """f64[N, in], what the kernel rounds rows to, and their largest magnitudes f32[N, 1].

    fbgemm multiplies and adds its zero point with one rounding to float32, and rounds that to a whole number.
    """
    q, largest = layer.quantise(x)
    if isinstance(layer, FusedInt8Linear):
        q = (127 * q.double() + 128).float().round().clamp(0, 255) - 128
    return q.double(), largest


def relative(got: Tensor, wanted: Tensor) -> Tensor:
    """f64[N], each row's L2 distance from the wanted one, relative to that; 0 where the two are the same."""
    distance, size = (got.double() - wanted.double()).norm(dim=1), wanted.double().norm(dim=1)
    return torch.where(distance == 0, 0.0, distance / size)


def reloaded(scripted: Any) -> Any:
    """Saved and loaded again."""
    buffer = io.BytesIO()
    torch.jit.save(scripted, buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)
