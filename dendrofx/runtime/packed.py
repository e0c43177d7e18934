"""The Linear whose weights are laid out for oneDNN, in float32 or bfloat16, and the activations that its kernel applies itself."""

from typing import Any, List, Optional, Tuple

import torch
from torch import Tensor, nn

from dendrofx.runtime.kernels import join_blocks, norm_twice, row_blocks


class PackedLinear(nn.Module):
    """`y = x W' + b` with the weight laid out for oneDNN's kernel, in the precision of `weight`.

    The packed weight is an opaque tensor that cannot be saved: the plain one is, and is packed again on load. So save it unfrozen,
    and freeze after loading.

    Args:
        weight: f32 or bf16[out, in].
        bias: the same dtype, [out], or None.
        pointwise: an activation that the kernel applies to its result while that is in registers: "none" or "gelu".
        algorithm: of gelu, "none" or "tanh".
    """

    plain: Tensor
    packed: Tensor
    bias: Optional[Tensor]

    def __init__(
        self,
        weight: Tensor,
        bias: Optional[Tensor],
        pointwise: str = "none",
        algorithm: str = "",
    ) -> None:
        super().__init__()
        self.pointwise = pointwise
        self.algorithm = algorithm
        self.register_buffer("plain", weight.detach().contiguous())
        self.register_buffer("bias", bias)
        self.packed = torch.ops.mkldnn._reorder_linear_weight(self.plain)
        self.macs = int(weight.numel())
        self.bits = 16 if weight.dtype == torch.bfloat16 else 32
        self.pads = True
        self.converts = int(weight.size(0) + weight.size(1)) if weight.dtype == torch.bfloat16 else 0

    def forward(self, x: Tensor) -> Tensor:
        """Map f32[N, in] to f32[N, out]."""
        if x.size(0) == 0:
            return x.new_empty([0, self.plain.size(0)])
        blocks: List[Tensor] = []
        for block in row_blocks(x, self.plain.dtype):
            blocks.append(self.product(block))
        return join_blocks(blocks, x.size(0), self.plain.size(0))

    def product(self, block: Tensor) -> Tensor:
        """Map one of the blocks of `row_blocks` to its output, in the dtype of the weight."""
        out: Tensor = torch.ops.mkldnn._linear_pointwise(
            block, self.packed, self.bias, self.pointwise, [], self.algorithm
        )
        return out

    def observe(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Return the output, and f32[N, 2]: the row's norm, twice."""
        return self.forward(x), norm_twice(x)

    def extra_repr(self) -> str:
        """Print `1024 -> 4096, float32, packed`."""
        after = "" if self.pointwise == "none" else f", {self.pointwise}"
        return f"{self.plain.size(1)} -> {self.plain.size(0)}, {str(self.plain.dtype).partition('.')[2]}, packed{after}"

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.packed = torch.ops.mkldnn._reorder_linear_weight(self.plain)

    def __reduce__(self) -> Tuple[Any, Tuple[Tensor, Optional[Tensor], str, str, bool]]:
        # for copy and pickle; TorchScript uses the two below
        return _packed, (self.plain, self.bias, self.pointwise, self.algorithm, self.training)

    @torch.jit.export
    def __getstate__(self) -> Tuple[Tensor, Optional[Tensor], str, str, int, int, int, bool]:
        return (
            self.plain,
            self.bias,
            self.pointwise,
            self.algorithm,
            self.macs,
            self.bits,
            self.converts,
            self.training,
        )

    @torch.jit.export
    def __setstate__(self, state: Tuple[Tensor, Optional[Tensor], str, str, int, int, int, bool]) -> None:
        self.plain = state[0]
        self.bias = state[1]
        self.pointwise = state[2]
        self.algorithm = state[3]
        self.macs = state[4]
        self.bits = state[5]
        self.converts = state[6]
        self.training = state[7]
        self.pads = True
        self.packed = torch.ops.mkldnn._reorder_linear_weight(self.plain)


class BarePackedLinear(PackedLinear):
    """A `PackedLinear` where nothing is saved or loaded, for freezing (see `lowering/isolate.py`)."""

    def __getstate__(self) -> Any:  # not exported: TorchScript does not take it over
        raise NotImplementedError

    def __setstate__(self, state: Any) -> None:
        raise NotImplementedError


def _packed(
    plain: Tensor,
    bias: Optional[Tensor],
    pointwise: str,
    algorithm: str,
    training: bool,
) -> PackedLinear:
    return PackedLinear(plain, bias, pointwise, algorithm).train(training)


def fuse_activation(layer: nn.Module, activation: nn.Module) -> Tuple[nn.Module, nn.Module]:
    """Return a layer and the activation after it; where the layer's kernel can apply it, a layer that does, and `Identity`.

    Its ReLU is left out: it makes 0 of NaN, so that a row that is not finite would end in numbers (oneDNN 3, torch 2.13).
    """
    if type(layer) is PackedLinear and layer.pointwise == "none" and type(activation) is nn.GELU:
        return PackedLinear(layer.plain, layer.bias, "gelu", activation.approximate), nn.Identity()
    return layer, activation
