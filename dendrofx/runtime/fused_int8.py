"""The Linear in 8-bit integers by fbgemm, for CPUs without VNNI."""

from typing import Any, Optional, Tuple

import torch
from torch import Tensor

from dendrofx.runtime.fbgemm import pack
from dendrofx.runtime.int8 import Int8Layer


class FusedInt8Linear(Int8Layer):
    """By fbgemm, whose operator rounds float32 rows, multiplies and scales the sums: exact for |weight| <= 64 (see `fbgemm.py`).

    It takes one scale for all rows: so rows are divided by their largest magnitude first, which makes that scale 1 / 127, and a
    row's result its own.

    The laid-out weights take as much memory again. A file holds them once: they are laid out on load, for the engine that
    `torch.backends.quantized.engine` names there, "x86" unless it was changed; under another the first call says that its layout
    has no such product. A frozen module keeps them laid out, and can be saved and loaded like any other. Where dendrofx is not
    there to keep it quiet, torch 2.13 writes on load that quantised tensors will go in a later release.

    Args:
        weight, bias, shrink: see `Int8Layer`.
        scale: f32[out], one step of each output channel's weights.

    Raises:
        RuntimeError: this torch or CPU has no fbgemm.
    """

    weight: Tensor
    scale: Tensor
    bias: Optional[Tensor]
    shrink: Optional[Tensor]

    def __init__(self, weight: Tensor, scale: Tensor, bias: Optional[Tensor], shrink: Optional[Tensor]) -> None:
        super().__init__(weight, scale, bias, shrink)
        self.packed = pack(self.weight, self.scale)

    def step(self) -> Tensor:
        """Return f64[out], one step of each output channel's weights."""
        return self.scale.double()

    def quantise(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Return f32[N, in] in -1 .. 1, which the product rounds to 127ths, and the rows' largest magnitudes f32[N, 1]."""
        x = self.shrunk(x)
        # reads x twice and writes nothing; writing |x| first took twice as long
        largest = torch.maximum(x.amax(1, True), x.amin(1, True).neg_()).clamp_min_(1e-30)
        return torch.div(x, largest, out=torch.empty([x.size(0), x.size(1)], dtype=torch.float32)), largest

    def multiply(self, q: Tensor) -> Tensor:
        """Compute f32[N, out] from f32[N, in] in -1 .. 1, as if each row's largest magnitude were 1."""
        y: Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(q, 1 / 127, 128, self.packed)
        return y

    def product(self, q: Tensor, largest: Tensor) -> Tensor:
        """Compute f32[N, out] from f32[N, in]."""
        y = self.multiply(q)
        bias = self.bias
        if bias is not None:
            return torch.addcmul(bias, y, largest, out=y)
        return y.mul_(largest)

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.packed = pack(self.weight, self.scale)

    def __reduce__(self) -> Tuple[Any, Tuple[Tensor, Tensor, Optional[Tensor], Optional[Tensor], bool]]:
        # for copy and pickle; TorchScript uses the two below
        return _fused, (self.weight, self.scale, self.bias, self.shrink, self.training)

    @torch.jit.export
    def __getstate__(self) -> Tuple[Tensor, Tensor, Optional[Tensor], Optional[Tensor], bool]:
        return self.weight, self.scale, self.bias, self.shrink, self.training

    @torch.jit.export
    def __setstate__(self, state: Tuple[Tensor, Tensor, Optional[Tensor], Optional[Tensor], bool]) -> None:
        self.weight = state[0]
        self.scale = state[1]
        self.bias = state[2]
        self.shrink = state[3]
        self.training = state[4]
        self.macs = self.weight.numel()
        self.bits = 8
        self.converts = self.weight.size(0) + self.weight.size(1)
        zeros = torch.zeros([self.weight.size(0)], dtype=torch.int64)
        steps = torch._make_per_channel_quantized_tensor(self.weight, self.scale.to(torch.float64), zeros, 0)
        self.packed = torch.ops.quantized.linear_prepack(steps, None)


class BareFusedInt8Linear(FusedInt8Linear):
    """A `FusedInt8Linear` where nothing is saved or loaded, for freezing (see `lowering/isolate.py`)."""

    def __getstate__(self) -> Any:  # not exported: TorchScript does not take it over
        raise NotImplementedError

    def __setstate__(self, state: Any) -> None:
        raise NotImplementedError


def _fused(
    weight: Tensor,
    scale: Tensor,
    bias: Optional[Tensor],
    shrink: Optional[Tensor],
    training: bool,
) -> FusedInt8Linear:
    return FusedInt8Linear(weight, scale, bias, shrink).train(training)
