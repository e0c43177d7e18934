"""The run-time modules of the light branches: plain ATen on plain tensors, so that they script, save and freeze.

This file is read by TorchScript: no postponed annotations, plain types.
"""

from typing import List, Optional, Tuple  # noqa: UP035

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LowRankLinear(nn.Module):
    """`y = decode (code x) + bias`.

    Args:
        code: f32[r, in].
        decode: f32[out, r].
        bias: f32[out] or None.
    """

    code: Tensor
    decode: Tensor
    bias: Optional[Tensor]  # noqa: UP045

    def __init__(self, code: Tensor, decode: Tensor, bias: Optional[Tensor]) -> None:  # noqa: UP045
        super().__init__()
        self.register_buffer("code", code.contiguous())
        self.register_buffer("decode", decode.contiguous())
        self.register_buffer("bias", bias)
        self.macs = int(code.numel() + decode.numel())

    def forward(self, x: Tensor) -> Tensor:
        """f32[N, in] -> f32[N, out]."""
        return F.linear(F.linear(x, self.code), self.decode, self.bias)

    def observe(self, x: Tensor) -> Tuple[Tensor, Tensor]:  # noqa: UP006
        """The output, and f32[N, 2]: the norms of the row and of its code."""
        code = F.linear(x, self.code)
        norms = torch.stack([torch.linalg.vector_norm(x, 2, 1), torch.linalg.vector_norm(code, 2, 1)], 1)
        return F.linear(code, self.decode, self.bias), norms

    def extra_repr(self) -> str:
        """`256 -> 32 -> 1024`."""
        return f"{self.code.size(1)} -> {self.code.size(0)} -> {self.decode.size(0)}"


class DenseLinear(nn.Module):
    """A Linear kept exact inside a light branch, without a copy of its weight."""

    weight: Tensor
    bias: Optional[Tensor]  # noqa: UP045

    def __init__(self, weight: Tensor, bias: Optional[Tensor]) -> None:  # noqa: UP045
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.macs = int(weight.numel())

    def forward(self, x: Tensor) -> Tensor:
        """f32[N, in] -> f32[N, out]."""
        return F.linear(x, self.weight, self.bias)

    def observe(self, x: Tensor) -> Tuple[Tensor, Tensor]:  # noqa: UP006
        """The output, and f32[N, 2]: the row's norm twice, since nothing of the row is missed."""
        norm = torch.linalg.vector_norm(x, 2, 1)
        return F.linear(x, self.weight, self.bias), torch.stack([norm, norm], 1)

    def extra_repr(self) -> str:
        """`1024 -> 5`."""
        return f"{self.weight.size(1)} -> {self.weight.size(0)}"


class LinearPair(nn.Module):
    """`y = decode(code(x))`, two thin Linears in another precision."""

    def __init__(self, code: nn.Module, decode: nn.Module) -> None:
        super().__init__()
        self.code = code
        self.decode = decode

    def forward(self, x: Tensor) -> Tensor:
        """f32[N, in] -> f32[N, out]."""
        return self.decode(self.code(x))  # type: ignore[no-any-return]


class LightChain(nn.Module):
    """`Linear (activation Linear)*` whose Linears are cheap ones.

    Args:
        layers: one per Linear of the block, each f32[N, in_i] -> a new f32[N, out_i].
        activations: one less.
    """

    def __init__(self, layers: List[nn.Module], activations: List[nn.Module]) -> None:  # noqa: UP006
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.activations = nn.ModuleList([_in_place(a) for a in activations] + [nn.Identity()])

    def forward(self, x: Tensor) -> Tensor:
        """f32[N, in] -> f32[N, out]."""
        for layer, activation in zip(self.layers, self.activations):  # noqa: B905
            x = activation(layer(x))
        return x


class ObservedChain(nn.Module):
    """A `LightChain` whose layers also tell what they see of a row: `LowRankLinear`, `DenseLinear` and those of `kernels.py`."""

    def __init__(self, chain: LightChain) -> None:
        super().__init__()
        self.layers = chain.layers
        self.activations = chain.activations

    def forward(self, x: Tensor) -> Tensor:
        """f32[N, in] -> f32[N, out]."""
        for layer, activation in zip(self.layers, self.activations):  # noqa: B905
            x = activation(layer(x))
        return x

    @torch.jit.export
    def observe(self, x: Tensor) -> Tuple[Tensor, Tensor]:  # noqa: UP006
        """The output, and f32[N, 2 * layers]: for each layer two norms of its input, which ones the layer says."""
        norms: List[Tensor] = []  # noqa: UP006
        for layer, activation in zip(self.layers, self.activations):  # noqa: B905
            x, norm = layer.observe(x)  # type: ignore[operator]
            x = activation(x)
            norms.append(norm)
        return x, torch.cat(norms, 1)


def _in_place(activation: nn.Module) -> nn.Module:
    """A layer's output is new and its own: a ReLU need not copy it."""
    return nn.ReLU(inplace=True) if type(activation) is nn.ReLU else activation
