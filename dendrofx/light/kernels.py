"""The low-precision and prepacked Linears that light and full branches are made of, and the row counts they run at.

oneDNN builds a primitive for every row count it meets and keeps up to 1024 of them, 0.6 to 2 MB each: 20,000 calls with
random row counts grew a process by a gigabyte. So the branches that use oneDNN run at few row counts: blocks of 512 rows
and a rest that is padded to the next of 1, 2, 4, 8, then multiples of 16 to 256, then of 64 (`padded_rows`).
`torch._int_mm` builds none and takes rows as they come.

This file is read by TorchScript: no postponed annotations, plain types.
"""

from typing import Any, List, Optional, Tuple  # noqa: UP035

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def padded_rows(rows: int) -> int:
    """Rows that a oneDNN branch runs for `rows` rows.

    Example:
        >>> [padded_rows(n) for n in (0, 1, 3, 17, 300, 513)]
        [0, 1, 4, 32, 320, 513]
    """
    rest = rows % 512
    if rest > 256:
        rest = (rest + 63) // 64 * 64
    elif rest > 8:
        rest = (rest + 15) // 16 * 16
    elif rest > 4:
        rest = 8
    elif rest == 3:
        rest = 4
    return rows // 512 * 512 + rest


def row_blocks(x: Tensor, dtype: torch.dtype) -> List[Tensor]:  # noqa: UP006
    """f32[N, in], cut into the blocks that a oneDNN branch runs, the last one padded with zero rows."""
    blocks: List[Tensor] = []  # noqa: UP006
    rows = x.size(0)
    for start in range(0, rows, 512):
        block = x[start : start + 512]
        padded = padded_rows(block.size(0))
        if padded == block.size(0):
            blocks.append(block.to(dtype))
        else:
            padding = torch.zeros([padded, x.size(1)], dtype=dtype)
            padding[: block.size(0)].copy_(block)
            blocks.append(padding)
    return blocks


def join_blocks(blocks: List[Tensor], rows: int, width: int) -> Tensor:  # noqa: UP006
    """The blocks' outputs as one f32[rows, width], padding left out."""
    if len(blocks) == 1:
        return blocks[0][:rows].to(torch.float32)
    out = torch.empty([rows, width])
    start = 0
    for block in blocks:
        stop = min(start + block.size(0), rows)
        out[start:stop].copy_(block[: stop - start])
        start = stop
    return out


def norm_twice(x: Tensor) -> Tensor:
    """f32[N, in] -> f32[N, 2]: what a layer observes of a row that has no other norm to tell."""
    norm = torch.linalg.vector_norm(x, 2, 1)
    return torch.stack([norm, norm], 1)


class Int8Linear(nn.Module):
    """`y = (row scale) * (q(x) @ weight') * scale + bias`, the product in 8-bit integers, accumulated in 32 bits, exactly.

    The pointwise work around the product makes as few passes over memory as ATen allows: one buffer serves |x| and x / a, and
    the result is scaled in place.

    Args:
        weight: i8[out, in].
        scale: f32[out], one step of each output channel's weights.
        bias: f32[out] or None.
        shrink: f32[in], what each column of x is multiplied by first, or None.
    """

    weight: Tensor
    scale: Tensor
    bias: Optional[Tensor]  # noqa: UP045
    shrink: Optional[Tensor]  # noqa: UP045

    def __init__(self, weight: Tensor, scale: Tensor, bias: Optional[Tensor], shrink: Optional[Tensor]) -> None:  # noqa: UP045
        super().__init__()
        self.register_buffer("weight", weight.contiguous())
        self.register_buffer("scale", scale / 127.0)  # a row's own scale is its largest entry, not its step
        self.register_buffer("bias", bias)
        self.register_buffer("shrink", shrink)
        self.macs = int(weight.numel())
        self.bits = 8
        self.converts = int(weight.size(0) + weight.size(1))

    def quantise(self, x: Tensor) -> Tuple[Tensor, Tensor]:  # noqa: UP006
        """i8[N, in] and the rows' largest magnitudes f32[N, 1], at least 1e-30."""
        x = x.data  # gradients do not pass rounding; freezing would drop detach()
        shrink = self.shrink
        if shrink is not None:
            x = x * shrink
        # a new buffer in row order: the product is refused, in silence, for the strides of some transposed rows
        buffer = torch.abs(x, out=torch.empty([x.size(0), x.size(1)]))
        largest = buffer.amax(1, True).clamp_min_(1e-30)
        torch.mul(x, 127.0 / largest, out=buffer)
        return buffer.round_().to(torch.int8), largest

    def product(self, q: Tensor, largest: Tensor) -> Tensor:
        """f32[N, out] from quantised rows."""
        weight = self.weight
        if weight.size(1) == 1:  # the product is refused, in silence, for one column
            q, weight = F.pad(q, [0, 1]), F.pad(weight, [0, 1])
        y = torch._int_mm(q, weight.t()).to(torch.float32).mul_(largest)
        bias = self.bias
        if bias is not None:
            return torch.addcmul(bias, y, self.scale, out=y)
        return y.mul_(self.scale)

    def forward(self, x: Tensor) -> Tensor:
        """f32[N, in] -> f32[N, out]."""
        q, largest = self.quantise(x)
        return self.product(q, largest)

    def scales(self, x: Tensor) -> Tuple[Tensor, Tensor]:  # noqa: UP006
        """The output, and f32[N, 1]: the row's largest magnitude, which quantising takes anyway."""
        q, largest = self.quantise(x)
        return self.product(q, largest), largest

    def observe(self, x: Tensor) -> Tuple[Tensor, Tensor]:  # noqa: UP006
        """The output, and f32[N, 2]: the row's norm and its largest magnitude, both after shrinking."""
        q, largest = self.quantise(x)
        shrink = self.shrink
        seen = x if shrink is None else x * shrink
        return self.product(q, largest), torch.cat([torch.linalg.vector_norm(seen, 2, 1, True), largest], 1)

    def extra_repr(self) -> str:
        """`1024 -> 4096, int8`."""
        return f"{self.weight.size(1)} -> {self.weight.size(0)}, int8"


class BFloat16Linear(nn.Module):
    """`y = x W' + b` in bfloat16, accumulated in float32 by the kernel, rounded to bfloat16 at the end.

    Args:
        weight: f32[out, in].
        bias: f32[out] or None.
    """

    weight: Tensor
    bias: Optional[Tensor]  # noqa: UP045

    def __init__(self, weight: Tensor, bias: Optional[Tensor]) -> None:  # noqa: UP045
        super().__init__()
        self.register_buffer("weight", weight.to(torch.bfloat16))
        self.register_buffer("bias", None if bias is None else bias.to(torch.bfloat16))
        self.macs = int(weight.numel())
        self.bits = 16
        self.pads = True
        self.converts = int(weight.size(0) + weight.size(1))

    def forward(self, x: Tensor) -> Tensor:
        """f32[N, in] -> f32[N, out]."""
        if x.size(0) == 0:
            return x.new_empty([0, self.weight.size(0)])
        blocks: List[Tensor] = []  # noqa: UP006
        for block in row_blocks(x, torch.bfloat16):
            blocks.append(F.linear(block, self.weight, self.bias))
        return join_blocks(blocks, x.size(0), self.weight.size(0))

    def observe(self, x: Tensor) -> Tuple[Tensor, Tensor]:  # noqa: UP006
        """The output, and f32[N, 2]: the row's norm, twice."""
        return self.forward(x), norm_twice(x)

    def extra_repr(self) -> str:
        """`1024 -> 4096, bfloat16`."""
        return f"{self.weight.size(1)} -> {self.weight.size(0)}, bfloat16"


class PackedLinear(nn.Module):
    """`y = x W' + b` with the weight laid out for oneDNN's kernel, in the precision of `weight`.

    The packed weight is an opaque tensor that cannot be saved: the plain one is, and is packed again on load. So save it unfrozen,
    and freeze after loading.

    Args:
        weight: f32 or bf16[out, in].
        bias: the same dtype, [out], or None.
    """

    plain: Tensor
    packed: Tensor
    bias: Optional[Tensor]  # noqa: UP045

    def __init__(self, weight: Tensor, bias: Optional[Tensor]) -> None:  # noqa: UP045
        super().__init__()
        self.register_buffer("plain", weight.detach().contiguous())
        self.register_buffer("bias", bias)
        self.packed = torch.ops.mkldnn._reorder_linear_weight(self.plain)
        self.macs = int(weight.numel())
        self.bits = 16 if weight.dtype == torch.bfloat16 else 32
        self.pads = True
        self.converts = int(weight.size(0) + weight.size(1)) if weight.dtype == torch.bfloat16 else 0

    def forward(self, x: Tensor) -> Tensor:
        """f32[N, in] -> f32[N, out]."""
        if x.size(0) == 0:
            return x.new_empty([0, self.plain.size(0)])
        blocks: List[Tensor] = []  # noqa: UP006
        for block in row_blocks(x, self.plain.dtype):
            blocks.append(torch.ops.mkldnn._linear_pointwise(block, self.packed, self.bias, "none", [], ""))
        return join_blocks(blocks, x.size(0), self.plain.size(0))

    def observe(self, x: Tensor) -> Tuple[Tensor, Tensor]:  # noqa: UP006
        """The output, and f32[N, 2]: the row's norm, twice."""
        return self.forward(x), norm_twice(x)

    def extra_repr(self) -> str:
        """`1024 -> 4096, float32, packed`."""
        return f"{self.plain.size(1)} -> {self.plain.size(0)}, {str(self.plain.dtype).partition('.')[2]}, packed"

    def _load_from_state_dict(self, *args: Any) -> None:  # noqa: ANN401  (torch's own)
        super()._load_from_state_dict(*args)
        self.packed = torch.ops.mkldnn._reorder_linear_weight(self.plain)

    def __reduce__(self) -> Tuple[Any, Tuple[Tensor, Optional[Tensor], bool]]:  # noqa: UP006, UP045
        return _packed, (self.plain, self.bias, self.training)  # for copy and pickle; TorchScript uses the two below

    @torch.jit.export
    def __getstate__(self) -> Tuple[Tensor, Optional[Tensor], int, int, int, bool]:  # noqa: UP006, UP045
        return (self.plain, self.bias, self.macs, self.bits, self.converts, self.training)

    @torch.jit.export
    def __setstate__(self, state: Tuple[Tensor, Optional[Tensor], int, int, int, bool]) -> None:  # noqa: UP006, UP045
        self.plain = state[0]
        self.bias = state[1]
        self.macs = state[2]
        self.bits = state[3]
        self.converts = state[4]
        self.training = state[5]
        self.pads = True
        self.packed = torch.ops.mkldnn._reorder_linear_weight(self.plain)


def _packed(plain: Tensor, bias: Optional[Tensor], training: bool) -> PackedLinear:  # noqa: UP045
    return PackedLinear(plain, bias).train(training)
