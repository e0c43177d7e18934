"""fbgemm's product of 8-bit rows with 7-bit weights: laying weights out for it, and whether it is here and exact.

torch reaches fbgemm through its quantised operators. What they make of a float32 row, a scale and a zero point z is

    u = round(x / scale + z)        in 0 .. 255
    y = scale s (u - z) p'          p 8-bit weights with steps s, the sum in 32-bit integers

On AVX2 the sum is built by VPMADDUBSW, which "multiplies vertically each unsigned byte of the destination operand with the
corresponding signed byte of the source operand, producing intermediate signed 16-bit integers", adds pairs of them and packs "the
saturated result" (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, PMADDUBSW). A pair is at most
2 * 255 * |p|, and 2 * 255 * 64 = 32640 <= 32767: with |p| <= 64 nothing saturates, and the product is exact. VNNI's VPDPBUSD
adds in 32 bits and is exact for any p.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

# `quantized::linear_prepack` lays out for whichever engine is set. "x86", the default, and "fbgemm" are the same code for a
# Linear; the layouts of the others do not have the product.
ENGINE = "fbgemm"
LARGEST_WEIGHT = 64  # 7 bits and the one value more that still cannot saturate
ROW_LEVELS = 127  # a row's largest entry in its own steps; exact in float32 both ways, 1 / float32(1 / 127) is 127
ZERO = 128


def pack(weight: Tensor, step: Tensor) -> torch.ScriptObject:
    """Lay weights out for fbgemm, as much memory again.

    Args:
        weight: i8[out, in].
        step: f32[out], one step of each output channel.

    Raises:
        RuntimeError: this torch or CPU has no fbgemm.
    """
    zeros = torch.zeros(weight.size(0), dtype=torch.int64)
    with _packing():
        steps = torch._make_per_channel_quantized_tensor(weight, step.double(), zeros, 0)
        packed: torch.ScriptObject = torch.ops.quantized.linear_prepack(steps, None)
    return packed


@cache
def fbgemm_exact() -> bool:
    """Return whether fbgemm is here and multiplies the largest 8-bit rows and 7-bit weights exactly."""
    if ENGINE not in torch.backends.quantized.supported_engines:
        return False
    rows, weight = torch.ones(32, 64), torch.full((32, 64), LARGEST_WEIGHT, dtype=torch.int8)
    packed = pack(weight, torch.full((32,), float(ROW_LEVELS)))  # times a row's own step: 1
    product = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
    wanted = ROW_LEVELS * rows @ weight.float().t()  # below 2^24: exact in float32
    return all(bool((product(s * rows, 1 / ROW_LEVELS, ZERO, packed) == s * wanted).all()) for s in (1.0, -1.0))


@contextmanager
def _packing() -> Iterator[None]:
    """Set the engine that packs, and silence torch's word that quantised tensors will go, which no user can act on."""
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = ENGINE
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.quantize_per_tensor, .*deprecated", category=UserWarning)
            yield
    finally:
        torch.backends.quantized.engine = before
