"""The row counts that oneDNN's Linears run at, and the one in bfloat16.

oneDNN builds a primitive for every row count it meets and keeps up to 1024 of them, 0.6 to 2 MB each: 20,000 calls with
random row counts grew a process by a gigabyte. So the branches that use oneDNN run at few row counts: blocks of 512 rows
and a rest that is padded to the next of 1, 2, then multiples of 4 to 32, of 8 to 64, of 16 to 256, of 64 beyond (`padded_rows`).
Products in 8-bit integers build none and take rows as they come.
"""

from typing import List, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def is_dense(x: Tensor) -> bool:
    """Tell whether a tensor is laid out as gates, branches and moves of rows need it: neither sparse nor nested nor mkldnn's."""
    return x.layout == torch.strided and not x.is_nested


def padded_rows(rows: int) -> int:
    """Return how many rows a oneDNN branch runs for `rows` rows.

    Example:
        >>> [padded_rows(n) for n in (0, 1, 3, 17, 300, 513)]
        [0, 1, 4, 20, 320, 513]
    """
    rest = rows % 512
    step = 64 if rest > 256 else 16 if rest > 64 else 8 if rest > 32 else 4 if rest > 2 else 1
    return rows - rest + (rest + step - 1) // step * step


def row_blocks(x: Tensor, dtype: torch.dtype) -> List[Tensor]:
    """Cut f32[N, in] into the blocks that a oneDNN branch runs, the last one padded with zero rows."""
    blocks: List[Tensor] = []
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


def join_blocks(blocks: List[Tensor], rows: int, width: int) -> Tensor:
    """Join the blocks' outputs to one f32[rows, width], padding left out."""
    if len(blocks) == 1:
        return blocks[0][:rows].to(torch.float32)
    out = torch.empty([rows, width], dtype=torch.float32)
    start = 0
    for block in blocks:
        stop = min(start + block.size(0), rows)
        out[start:stop].copy_(block[: stop - start])
        start = stop
    return out


def norm_twice(x: Tensor) -> Tensor:
    """Map f32[N, in] to f32[N, 2]: what a layer observes of a row that has no other norm to tell."""
    norm = torch.linalg.vector_norm(x, 2, 1)
    return torch.stack([norm, norm], 1)


class BFloat16Linear(nn.Module):
    """`y = x W' + b` in bfloat16, accumulated in float32 by the kernel, rounded to bfloat16 at the end.

    Args:
        weight: f32[out, in].
        bias: f32[out] or None.
    """

    weight: Tensor
    bias: Optional[Tensor]

    def __init__(self, weight: Tensor, bias: Optional[Tensor]) -> None:
        super().__init__()
        self.register_buffer("weight", weight.to(torch.bfloat16))
        self.register_buffer("bias", None if bias is None else bias.to(torch.bfloat16))
        self.macs = int(weight.numel())
        self.bits = 16
        self.pads = True
        self.converts = int(weight.size(0) + weight.size(1))

    def forward(self, x: Tensor) -> Tensor:
        """Map f32[N, in] to f32[N, out]."""
        if x.size(0) == 0:
            return x.new_empty([0, self.weight.size(0)])
        blocks: List[Tensor] = []
        for block in row_blocks(x, torch.bfloat16):
            blocks.append(F.linear(block, self.weight, self.bias))
        return join_blocks(blocks, x.size(0), self.weight.size(0))

    def observe(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Return the output, and f32[N, 2]: the row's norm, twice."""
        return self.forward(x), norm_twice(x)

    def extra_repr(self) -> str:
        """Print `1024 -> 4096, bfloat16`."""
        return f"{self.weight.size(1)} -> {self.weight.size(0)}, bfloat16"
