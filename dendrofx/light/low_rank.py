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

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dendrofx.block import activations_of, as_block, hidden_rows, linears_of
from dendrofx.errors import InputError
from dendrofx.light.branch import DenseLinear, LightChain, LowRankLinear
from dendrofx.light.form import LightForm

Basis = Literal["weight", "input", "whitened"]


@dataclass(frozen=True)
class LowRank(LightForm):
    """`y = B (A x) + b` with r directions per Linear.

    Linears for which rank r saves no multiply-adds stay as they are.

    Args:
        rank: directions kept, at least 1.
        basis: which directions, see the module's docstring. "input" and "whitened" need calibration rows.

    Example:
        >>> light = LowRank(rank=32).fit(nn.Linear(256, 1024))
        >>> light(torch.randn(8, 256)).shape
        torch.Size([8, 1024])
    """

    rank: int
    basis: Basis = "weight"

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise InputError(f"rank must be >= 1, got {self.rank}")
        if self.basis not in ("weight", "input", "whitened"):
            raise InputError(f"basis must be 'weight', 'input' or 'whitened', got {self.basis!r}")

    @property
    def needs_rows(self) -> bool:  # type: ignore[override]
        """Whether `fit` needs calibration rows."""
        return self.basis != "weight"

    @torch.no_grad()
    def fit(self, block: nn.Module, calibration: Tensor | None = None) -> nn.Module:
        """Factor every Linear of the block; see `LightForm.fit`."""
        chain = as_block(block)
        linears = linears_of(chain)
        inputs: list[Tensor | None] = [None] * len(linears)
        if self.needs_rows:
            inputs = list(hidden_rows(chain, self.required_rows(calibration, linears[0].in_features)))
        layers = [self._factor(linear, rows) for linear, rows in zip(linears, inputs, strict=True)]
        return LightChain(layers, activations_of(chain), observes=self.basis != "whitened")

    def _factor(self, linear: nn.Linear, rows: Tensor | None) -> nn.Module:
        weight = linear.weight.detach()
        bias = None if linear.bias is None else linear.bias.detach()
        if self.rank * sum(weight.shape) >= weight.numel():
            return DenseLinear(weight, bias)
        if rows is None:
            directions = principal_directions(weight, self.rank)
        elif self.basis == "input":
            directions = principal_directions(rows, self.rank)
        else:
            directions = principal_directions(F.linear(rows, weight), self.rank)
            return LowRankLinear(code=directions.t() @ weight, decode=directions, bias=bias)
        return LowRankLinear(code=directions.t(), decode=weight @ directions, bias=bias)


def principal_directions(matrix: Tensor, rank: int) -> Tensor:
    """The leading right singular vectors of f32[m, n] as f32[n, rank], from the smaller Gram matrix in float64.

    The vectors are orthonormalised once more: with the rows' Gram matrix they would lose orthogonality where singular
    values are small, and directions beyond the matrix's rank are completed by the QR step.
    """
    a = matrix.to(torch.float64)
    if a.size(0) >= a.size(1):
        vectors = torch.linalg.eigh(a.t() @ a).eigenvectors.flip(1)[:, :rank]
    else:
        left = torch.linalg.eigh(a @ a.t()).eigenvectors.flip(1)[:, :rank]
        vectors = a.t() @ left
        if vectors.size(1) < rank:
            filler = torch.eye(a.size(1), rank - vectors.size(1), dtype=a.dtype)
            vectors = torch.cat([vectors, filler], 1)
        vectors = torch.linalg.qr(vectors).Q
    # A sign rule makes the factors the same on every machine, as far as the eigenvectors are.
    signs = vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
    return (vectors * signs).to(matrix.dtype)
