"""The rungs of low precision as test parameters, and what their tests compare with."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dendrofx
from dendrofx.errors import InputError
from dendrofx.light import BFloat16, Int8, LightForm
from dendrofx.runtime.fused_int8 import FusedInt8Linear
from dendrofx.runtime.int8 import Int8Layer
from dendrofx.values.forms import Form

HERE = dendrofx.capability()
needs_vnni = pytest.mark.skipif(not (HERE.vnni and HERE.int8_exact), reason=f"8-bit weights need VNNI; this is {HERE}")
needs_fbgemm = pytest.mark.skipif(not HERE.fbgemm, reason=f"needs fbgemm; this is {HERE}")
needs_bf16 = pytest.mark.skipif(not HERE.bf16, reason=f"needs native bfloat16 products; this is {HERE}")


def rungs(*rows: LightForm | tuple[Any, ...]) -> list[Any]:
    """Return forms, or rows of a table that begin with one, as parameters; what this CPU cannot run is skipped, with the reason."""
    table = [row if isinstance(row, tuple) else (row,) for row in rows]
    names = ["-".join(str(v) for v in row if isinstance(v, Form)) for row in table]
    return [pytest.param(*row, id=name, marks=_needs(row[0])) for row, name in zip(table, names, strict=True)]


def _needs(form: LightForm) -> list[pytest.MarkDecorator]:
    part = getattr(form, "precision", None) or form
    if isinstance(part, BFloat16):
        return [needs_bf16]
    return [needs_vnni] if part in (Int8(), Int8(smooth=getattr(part, "smooth", 0.0))) else []


def exact(block: nn.Linear | nn.Sequential, x: Tensor) -> Tensor:
    """Return a Linear's outputs, or a chain's of Linears and activations, in float64."""
    y = x.double()
    for layer in [block] if isinstance(block, nn.Linear) else block:
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


def refusal(call: Callable[..., object], *args: Any, **options: Any) -> str:
    """Return the message with which a call is refused."""
    with pytest.raises(InputError) as error:
        call(*args, **options)
    return str(error.value)


def seeded(make: Callable[..., Any], *args: Any, seed: int = 0) -> Any:
    """Make something at random that is the same wherever it is made."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make(*args)
