"""The residual gate: a sound bound on the error of a low-rank light branch, from norms it computes anyway."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dendrofx.errors import InputError
from dendrofx.gates.form import GateForm, SiteRows
from dendrofx.graph.activations import LIPSCHITZ
from dendrofx.runtime.branches import DenseLinear, LowRankLinear, ObservedChain
from dendrofx.runtime.evidence_scores import ResidualScore

UNIT = 2.0**-24  # unit roundoff of float32
TINIEST = 2.0**-126  # squares below it may flush to zero
SPREAD = 8.0  # rounding errors of a sum of n terms stay below SPREAD sqrt(n) UNIT, see the class


@dataclass(frozen=True)
class ResidualGate(GateForm):
    r"""Bounds the relative error of a row; needs no data.

    **One Linear.** The light branch is `B A x + b`, its error `E x` with `E = W - B A`. Let c = A x be the code. Then
    x = A'c + (x - A'c), so

        ||E x|| <= ||E||_2 ||x - A'c|| + ||E A'||_2 ||c||                                                    (1)
        ||x - A'c||^2 = ||x||^2 - 2 ||c||^2 + c' A A' c <= ||x||^2 - ||c||^2 + ||A A' - I||_2 ||c||^2         (2)

    With exactly orthonormal rows of A and B = W A', (1) and (2) are ||W (I - A'A)||_2 sqrt(||x||^2 - ||A x||^2). Taking
    the norms of the *stored* factors, in float64, makes them hold for the factors that really run.

    **A chain.** Let h be the light and g the full hidden vector after an activation with Lipschitz constant L. Their
    distance is at most L times the bound B1 so far, and the next Linear's outputs differ by at most

        ||W2 g - light2(h)|| <= ||W2 (g - h)|| + ||W2 h - light2(h)|| <= L ||W2||_2 B1 + B2                   (3)

    where B2 is (1) at the light hidden vector h, whose norms the light branch has at hand.

    **A relative score.** ||y_full|| >= ||y_light|| - B, so the relative error is at most `B / (||y_light|| - B)`; where
    B >= ||y_light|| there is no finite bound and the score is 1e30.

    **In float32** `||x||^2 - ||c||^2` cancels, and both branches round. Each Linear adds to (1): `slack ||x||^2` inside the
    root, `rounding ||x||` and a constant for the bias. A sum of n products is charged with `8 sqrt(n) u`, u = 2^-24, the
    probabilistic bound of Higham and Mary (SIAM J. Sci. Comput. 41(5), 2019, Thm 3.1, whose failure probability at
    lambda = 8 is below 2e-13); the norms of x and c, whose terms have one sign, with the deterministic `n u`. Squares that
    underflow are covered by `tiny`. The bound holds for the block, never for the model behind it.

    It is not valid for `LowRank(basis="whitened")`, whose code is no orthogonal projection: those branches are refused.

    Example:
        >>> routed = dendrofx.transform(model, calibration=batches, light=dendrofx.LowRank(4), gate=dendrofx.ResidualGate())
    """

    reads = "evidence"

    def fit_site(self, site: SiteRows) -> nn.Module:
        """Take the norms of the block's and the light branch's stored factors; see `GateForm.fit`."""
        light = site.light
        bounded = isinstance(light, ObservedChain) and all(
            isinstance(m, LowRankLinear | DenseLinear) for m in light.layers
        )
        if not bounded:
            raise InputError(
                f"{self} bounds LowRank branches with basis 'weight' or 'input', whose code is an orthogonal"
                " projection of the row; take LearnedGate() for this light form"
            )
        chain = site.data
        lipschitz = [0.0, *(LIPSCHITZ[type(a)] for a in chain.activations)]
        linears = chain.linears
        terms = [
            _terms(lin, layer, slope)
            for lin, layer, slope in zip(linears, light.get_submodule("layers").children(), lipschitz, strict=True)
        ]
        # rounded up: float32 holds the float64 constants only to half a unit
        stored = torch.tensor(terms, dtype=torch.float64) * (1 + 4 * UNIT)
        return ResidualScore(stored.to(torch.float32), rounding=linears[-1].out_features * UNIT)


def _terms(linear: nn.Linear, layer: nn.Module, lipschitz: float) -> list[float]:
    """Return grow, miss, seen, slack, tiny, rounding and constant of one Linear."""
    weight = linear.weight.detach().double()
    frobenius = float(torch.linalg.matrix_norm(weight))
    spectral = spectral_norm(weight)
    fan_in = weight.size(1)
    product = SPREAD * math.sqrt(fan_in) * UNIT
    bias = 0.0 if linear.bias is None else float(torch.linalg.vector_norm(linear.bias.detach().double()))
    grow = lipschitz * (spectral + product * frobenius)
    # the full product rounds, and so does the activation before it (a few units of each entry)
    rounding = 2 * product * frobenius + 16 * UNIT * spectral
    constant = 4 * UNIT * bias + rounding * math.sqrt(4 * fan_in * TINIEST)  # where the norm underflows
    if not isinstance(layer, LowRankLinear):
        return [grow, 0.0, 0.0, 0.0, 0.0, rounding, constant]
    code, decode = layer.code.double(), layer.decode.double()
    residual = weight - decode @ code
    rank = code.size(0)
    projection = spectral_norm(code @ code.t() - torch.eye(rank, dtype=torch.float64))
    code_rounding = product * math.sqrt(rank)
    slack = projection + 4 * (fan_in + rank) * UNIT + 4 * code_rounding
    decode_rounding = SPREAD * math.sqrt(rank) * UNIT * float(torch.linalg.matrix_norm(decode))
    rounding += spectral_norm(decode) * code_rounding + 2 * decode_rounding
    seen = spectral_norm(residual @ code.t())
    return [grow, spectral_norm(residual), seen, slack, 4 * fan_in * TINIEST, rounding, constant]


def spectral_norm(matrix: Tensor) -> float:
    """Return the largest singular value of f64[m, n], from the smaller Gram matrix; exact to about 1e-13, rounded up."""
    gram = matrix @ matrix.t() if matrix.size(0) <= matrix.size(1) else matrix.t() @ matrix
    largest, trace = float(torch.linalg.eigvalsh(gram)[-1]), float(gram.diagonal().sum())
    return math.sqrt(max(largest, 0.0)) * (1 + 1e-12) + math.sqrt(max(trace, 0.0)) * 1e-8
