"""Low rank: each Linear of the block becomes two thin ones.

    y = W x + b          W: (out, in)
    y = B (A x) + b      A: (r, in) the code, B: (out, r)          r (in + out) multiply-adds instead of in * out

Three choices of the r directions that are kept, by the field `basis`:

    "weight"    A = Q', the r leading right singular vectors of W, B = W Q. Needs no data; the best approximation of W in
                spectral and Frobenius norm (Eckart and Young, 1936).
    "input"     A = Q', the r principal directions of the calibration inputs (uncentred), B = W Q.
    "whitened"  B = U, the r principal directions of the calibration *outputs* W x (uncentred), A = U' W. This minimises
                the mean squared output error over the calibration rows: it is the truncated SVD of W S with S S' the
                second moment of the inputs, written without forming S (Wang et al., SVD-LLM, arXiv 2403.07378).

In the first two, `||x||^2 - ||A x||^2` is the energy that the code misses: the evidence of `ResidualGate`. In the last it
is not, because the rows of A are not orthonormal; that form offers no evidence.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from dendrofx.errors import InputError
from dendrofx.graph.block import BlockData
from dendrofx.light.form import LightForm, Precision, cast_linear, check_precision
from dendrofx.runtime.branches import DenseLinear, LowRankLinear, light_chain, linear_pair, observed_chain

Basis = Literal["weight", "input", "whitened"]


@dataclass(frozen=True)
class LowRank(LightForm):
    """`y = B (A x) + b` with r directions per Linear.

    Linears for which rank r saves no multiply-adds stay as they are.

    Args:
        rank: directions kept, at least 1.
        basis: which directions, see the module's docstring. "input" and "whitened" need calibration rows.
        precision: of the thin Linears, `Int8()` or `BFloat16()`; None is float32.

    Example:
        >>> light = LowRank(rank=32).fit(nn.Linear(256, 1024))
        >>> light(torch.randn(8, 256)).shape
        torch.Size([8, 1024])
    """

    rank: int
    basis: Basis = field(default="weight", metadata={"shown": True})
    precision: Precision | None = None

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise InputError(f"rank must be >= 1, got {self.rank}")
        check_precision(self.precision)
        if self.basis not in ("weight", "input", "whitened"):
            raise InputError(f"basis must be 'weight', 'input' or 'whitened', got {self.basis!r}")

    @property
    def needs_rows(self) -> bool:  # type: ignore[override]
        """Whether `fit` needs calibration rows."""
        return self.basis != "weight" or (self.precision is not None and self.precision.needs_rows)

    def build(self, data: BlockData) -> nn.Module:
        """Factor every Linear; see `LightForm.fit`."""
        layers = [self._factor(data, i) for i in range(len(data.linears))]
        if self.basis != "whitened" and self.precision is None:
            return observed_chain(layers, data.activations)
        return light_chain(layers, data.activations)

    def _factor(self, data: BlockData, index: int) -> nn.Module:
        linear = data.linears[index]
        weight = linear.weight.detach()
        bias = None if linear.bias is None else linear.bias.detach()
        rows = None if data.rows is None else data.inputs[index]
        if self.rank * sum(weight.shape) >= weight.numel():
            return cast_linear(self.precision, DenseLinear(weight, bias), rows)
        directions = data.directions(index, self.basis)[:, : self.rank].clone()  # a view would keep them all
        if self.basis == "whitened":
            code, decode = directions.t() @ weight, directions
        else:
            code, decode = directions.t(), weight @ directions
        if self.precision is None:
            return LowRankLinear(code, decode, bias)
        codes = None if rows is None else rows @ code.t()
        first = self.precision.linear(code.contiguous(), None, rows)
        return linear_pair(first, self.precision.linear(decode.contiguous(), bias, codes))
