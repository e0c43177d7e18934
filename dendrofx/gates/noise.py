"""The noise gate: the rounding noise of a low-precision light branch on this very row, from norms it computes anyway."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from dendrofx.errors import InputError
from dendrofx.gates.form import GateForm, SiteRows
from dendrofx.graph.activations import LIPSCHITZ
from dendrofx.runtime.branches import ObservedChain
from dendrofx.runtime.evidence_scores import NoiseScore
from dendrofx.runtime.int8 import Int8Layer
from dendrofx.runtime.kernels import BFloat16Linear
from dendrofx.runtime.packed import PackedLinear

# A rounding error is uniform over a step, step / sqrt(12) in the root mean square, and never above half a step, sqrt(3) times that.
COVER = math.sqrt(3)
BF16_STEP = 2.0**-7  # largest step of a bfloat16 number, relative to it


@dataclass(frozen=True)
class NoiseGate(GateForm):
    r"""Estimates the relative error of a row under `Int8` or `BFloat16`; needs no data.

    **Model.** Rounding errors are independent of each other and of the weights (Widrow and Kollar, Quantization Noise, 2008).
    An error vector e of the input then comes out as ||W e||^2 ~ sum_i e_i^2 ||W_i||^2, and

        int8    a^2 / (12 127^2) ||W||_F^2        the row, rounded to steps of a / 127, a = max |x|
                + ||x||^2 sum_j s_j^2 / 12        the weights, rounded to steps of s_j
        bf16    2 step^2 / 12 ||x||^2 max_i ||W_i||^2     the row and the weights, each to its own relative step
                + step^2 / 12 ||y||^2             the result

    is the squared noise of one Linear. Noise v^2 of a hidden row passes an activation with Lipschitz constant L and the next
    Linear as L^2 v^2 ||W||_F^2 / n, n its width. What matters to a row is its crest: an entry far above the others makes its
    step, and so its noise, large beside the rest of it.

    **Score.** `n / (||y_light|| - n)`, n = c v: c = sqrt(3) covers errors of half a step everywhere instead of uniform ones,
    and for narrow outputs, whose noise is less averaged, c = 1 + 2.3 / sqrt(out), the 99.9 % quantile of a chi variable. It is an
    estimate, not a bound: errors that all point along the weights' leading direction exceed it.

    Example:
        >>> routed = dendrofx.transform(model, calibration=batches, light=dendrofx.Int8(), gate=dendrofx.NoiseGate())
    """

    reads = "evidence"

    def fit_site(self, site: SiteRows) -> nn.Module:
        """Take the norms of the light branch's stored weights; see `GateForm.fit`."""
        light = site.light
        layers = list(light.get_submodule("layers").children()) if isinstance(light, ObservedChain) else []
        low = [
            isinstance(m, Int8Layer | BFloat16Linear) or (isinstance(m, PackedLinear) and m.bits == 16) for m in layers
        ]
        if not layers or not all(low):
            raise InputError(
                f"{self} estimates the rounding noise of Int8 and BFloat16 branches; take LearnedGate() for this light form"
            )
        lipschitz = [0.0, *(LIPSCHITZ[type(a)] for a in site.data.activations)]
        terms = [_terms(layer, slope) for layer, slope in zip(layers, lipschitz, strict=True)]
        rounding = 0.0 if isinstance(layers[-1], Int8Layer) else BF16_STEP**2 / 12
        cover = max(COVER, 1 + 2.3 / math.sqrt(site.data.linears[-1].out_features))
        return NoiseScore(torch.tensor(terms, dtype=torch.float32), rounding, cover)


def _terms(layer: nn.Module, lipschitz: float) -> list[float]:
    """Return what one Linear carries over of the squared noise so far, and of the squares of the two norms it observes."""
    if isinstance(layer, Int8Layer):
        step = layer.step()
        weight = layer.weight.double() * step[:, None]
        square = float(weight.square().sum())
        carried = lipschitz**2 * square / weight.size(1)
        if layer.shrink is not None:
            carried *= float(layer.shrink.double().square().mean())
        return [carried, float(step.square().sum()) / 12, square / (12 * 127**2)]
    weight = (layer.plain if isinstance(layer, PackedLinear) else layer.get_buffer("weight")).double()
    columns = weight.square().sum(0)
    return [lipschitz**2 * float(columns.mean()), 2 * BF16_STEP**2 / 12 * float(columns.max()), 0.0]
