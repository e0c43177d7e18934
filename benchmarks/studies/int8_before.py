"""What `Int8` is measured against. This file is read by TorchScript: no postponed annotations."""

import torch
from torch import Tensor, nn


class Int8Before(nn.Module):
    """Per-row int8 as one would first write it: a new tensor for every step."""

    weight: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """f32[N, in] -> f32[N, out]."""
        a = x.abs().amax(1, keepdim=True).clamp_min(1e-8) / 127.0
        q = torch.round(x / a).to(torch.int8)
        product = torch._int_mm(q, self.weight.t()).to(torch.float32)
        return torch.addcmul(self.bias, product, a * self.scale)
