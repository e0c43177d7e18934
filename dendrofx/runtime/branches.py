"""The run-time modules of the light branches: plain ATen on plain tensors, so that they script, save and freeze."""

from typing import List, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dendrofx.runtime.int8 import Int8Layer
from dendrofx.runtime.kernels import join_blocks, norm_twice, row_blocks
from dendrofx.runtime.packed import PackedLinear, fuse_activation


class LowRankLinear(nn.Module):
    """`y = decode (code x) + bias`.

    Args:
        code: f32[r, in].
        decode: f32[out, r].
        bias: f32[out] or None.
    """

    code: Tensor
    decode: Tensor
    bias: Optional[Tensor]

    def __init__(self, code: Tensor, decode: Tensor, bias: Optional[Tensor]) -> None:
        super().__init__()
        self.register_buffer("code", code.contiguous())
        self.register_buffer("decode", decode.contiguous())
        self.register_buffer("bias", bias)
        self.macs = int(code.numel() + decode.numel())

    def forward(self, x: Tensor) -> Tensor:
        """Map f32[N, in] to f32[N, out]."""
        return F.linear(F.linear(x, self.code), self.decode, self.bias)

    def observe(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Return the output, and f32[N, 2]: the norms of the row and of its code."""
        code = F.linear(x, self.code)
        norms = torch.stack([torch.linalg.vector_norm(x, 2, 1), torch.linalg.vector_norm(code, 2, 1)], 1)
        return F.linear(code, self.decode, self.bias), norms

    def extra_repr(self) -> str:
        """Print `256 -> 32 -> 1024`."""
        return f"{self.code.size(1)} -> {self.code.size(0)} -> {self.decode.size(0)}"


class DenseLinear(nn.Module):
    """A Linear kept exact inside a light branch, without a copy of its weight."""

    weight: Tensor
    bias: Optional[Tensor]

    def __init__(self, weight: Tensor, bias: Optional[Tensor]) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.macs = int(weight.numel())

    def forward(self, x: Tensor) -> Tensor:
        """Map f32[N, in] to f32[N, out]."""
        return F.linear(x, self.weight, self.bias)

    def observe(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Return the output, and f32[N, 2]: the row's norm twice, since nothing of the row is missed."""
        return F.linear(x, self.weight, self.bias), norm_twice(x)

    def extra_repr(self) -> str:
        """Print `1024 -> 5`."""
        return f"{self.weight.size(1)} -> {self.weight.size(0)}"


class TransposedLinear(DenseLinear):
    """A Linear whose weight, f32[out, in] still, lies in memory as its transpose.

    `F.linear` hands BLAS the transpose of what it gets: a plain matrix here, which is read as it lies, and where rows are few the
    reading takes longer than the product. It runs any row count, and has nothing of the 25 us that a call of oneDNN's takes.
    """

    def __init__(self, weight: Tensor, bias: Optional[Tensor]) -> None:
        super().__init__(weight.detach().t().contiguous().t(), bias)
        self.bits = 32

    def extra_repr(self) -> str:
        """Print `1024 -> 4096, transposed`."""
        return f"{self.weight.size(1)} -> {self.weight.size(0)}, transposed"


class LinearPair(nn.Module):
    """`y = decode(code(x))`, two thin Linears in another precision."""

    def __init__(self, code: nn.Module, decode: nn.Module) -> None:
        super().__init__()
        self.code = code
        self.decode = decode

    def forward(self, x: Tensor) -> Tensor:
        """Map f32[N, in] to f32[N, out]."""
        return self.decode(self.code(x))  # type: ignore[no-any-return]


class Int8Pair(LinearPair):
    """A `LinearPair` of `Int8Layer`s."""

    def scales(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Return the output, and f32[N, 2]: the largest magnitudes of the row and of its code."""
        code, first = self.code.scales(x)  # type: ignore[operator]
        out, second = self.decode.scales(code)  # type: ignore[operator]
        return out, torch.cat([first, second], 1)


class LightChain(nn.Module):
    """`Linear (activation Linear)*` whose Linears are cheap ones.

    Args:
        layers: one per Linear of the block, each f32[N, in_i] -> a new f32[N, out_i].
        activations: one less.
    """

    def __init__(self, layers: List[nn.Module], activations: List[nn.Module]) -> None:
        super().__init__()
        pairs = [fuse_activation(*pair) for pair in zip(layers, [*activations, nn.Identity()])]
        self.layers = nn.ModuleList([layer for layer, _ in pairs])
        self.activations = nn.ModuleList([_in_place(activation) for _, activation in pairs])

    def forward(self, x: Tensor) -> Tensor:
        """Map f32[N, in] to f32[N, out]."""
        for layer, activation in zip(self.layers, self.activations):
            x = activation(layer(x))
        return x


class ObservedChain(LightChain):
    """A chain whose layers also tell what they see of a row: `LowRankLinear`, `DenseLinear` and those in low precision."""

    @torch.jit.export
    def observe(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Return the output, and f32[N, 2 * layers]: for each layer two norms of its input, which ones the layer says."""
        norms: List[Tensor] = []
        for layer, activation in zip(self.layers, self.activations):
            x, norm = layer.observe(x)  # type: ignore[operator]
            x = activation(x)
            norms.append(norm)
        return x, torch.cat(norms, 1)


class PackedChain(ObservedChain):
    """Whole Linears laid out in float32: rows are cut into blocks and padded once, not for every Linear."""

    def __init__(self, layers: List[nn.Module], activations: List[nn.Module]) -> None:
        super().__init__(layers, activations)
        self.width = int(layers[-1].get_buffer("plain").size(0))

    def forward(self, x: Tensor) -> Tensor:
        """Map f32[N, in] to f32[N, out]."""
        if x.size(0) == 0:
            return x.new_empty([0, self.width])
        blocks: List[Tensor] = []
        for block in row_blocks(x, torch.float32):
            for layer, activation in zip(self.layers, self.activations):
                block = activation(layer.product(block))  # type: ignore[operator]
            blocks.append(block)
        return join_blocks(blocks, x.size(0), self.width)


class Int8Chain(LightChain):
    """A chain of `Int8Layer`s and `Int8Pair`s, which can also tell the scales that its rows were quantised with."""

    @torch.jit.export
    def scales(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Return the output, and f32[N, Linears]: the largest magnitude of what each takes in."""
        found: List[Tensor] = []
        for layer, activation in zip(self.layers, self.activations):
            x, scale = layer.scales(x)  # type: ignore[operator]
            x = activation(x)
            found.append(scale)
        return x, torch.cat(found, 1)


class ObservedInt8Chain(ObservedChain, Int8Chain):
    """Whole Linears in int8: both."""


def _in_place(activation: nn.Module) -> nn.Module:
    """Let a ReLU write into its input: a layer's output is new and its own."""
    return nn.ReLU(inplace=True) if type(activation) is nn.ReLU else activation


def light_chain(layers: List[nn.Module], activations: List[nn.Module]) -> LightChain:
    """Make an `Int8Chain` where every layer is one of its kind, else a `LightChain`."""
    int8 = all(isinstance(m, (Int8Layer, Int8Pair)) for m in layers)
    return Int8Chain(layers, activations) if int8 else LightChain(layers, activations)


def observed_chain(layers: List[nn.Module], activations: List[nn.Module]) -> ObservedChain:
    """Make an `ObservedChain`, of the kind that all of its layers allow: see `ObservedInt8Chain` and `PackedChain`."""
    if all(isinstance(m, PackedLinear) and m.bits == 32 for m in layers):
        return PackedChain(layers, activations)
    int8 = all(isinstance(m, Int8Layer) for m in layers)
    return ObservedInt8Chain(layers, activations) if int8 else ObservedChain(layers, activations)


def linear_pair(code: nn.Module, decode: nn.Module) -> nn.Module:
    """Make an `Int8Pair` where both are `Int8Layer`s, else a `LinearPair`."""
    if isinstance(code, Int8Layer) and isinstance(decode, Int8Layer):
        return Int8Pair(code, decode)
    return LinearPair(code, decode)
