"""Pruned: the hidden units that calibration rows hardly use are left out.

    h = act(W1 x + b1)                y = W2 h + b2
    h_k = act(W1[k] x + b1[k])        y = (W2[:, k] + D) h_k + b2 + m          k: the units that are kept

Unit j matters by its *energy*, its mean squared contribution `mean(h_j^2) ||W2[:, j]||^2` over the calibration rows; the
fewest units that hold the share `energy` of the whole are kept, in every hidden layer. What the others gave is made up for:

    ridge = inf     mean compensation: m = W2[:, dropped] mean(h[dropped]), D = 0.
    ridge < inf     the dropped part is predicted from the kept units by ridge regression (Hoerl and Kennard, 1970), with
                    penalty `ridge` times the mean variance of the kept units; m is its intercept.

A unit that never fires on the calibration rows has energy 0, so `energy=1.0` drops just the dead ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dendrofx.errors import InputError
from dendrofx.graph.block import BlockData
from dendrofx.light.form import LightForm, Precision, cast_linear, check_precision
from dendrofx.runtime.branches import DenseLinear, light_chain
from dendrofx.statistics.moments import Moments

# Kept units are rounded up to whole vector registers: 16 float32 in AVX-512.
VECTOR = 16


@dataclass(frozen=True)
class Pruned(LightForm):
    """Keep the hidden units that carry the share `energy` of each hidden layer's contribution.

    Args:
        energy: share of the squared contribution that is kept, in (0, 1].
        ridge: penalty of the compensation, relative to the kept units' variance; `inf` compensates the mean alone.
        precision: of the smaller Linears, `Int8()` or `BFloat16()`; None is float32.

    Example:
        >>> light = Pruned(energy=0.999).fit(nn.Sequential(fc1, nn.ReLU(), fc2), calibration=rows)
        >>> light.layers[0]          # 300 of 2048 hidden units
        DenseLinear(4096 -> 304)
    """

    energy: float = field(default=0.999, metadata={"shown": True})
    ridge: float = math.inf
    precision: Precision | None = None
    needs_rows = True

    def __post_init__(self) -> None:
        if not 0 < self.energy <= 1:
            raise InputError(f"energy must be in (0, 1], got {self.energy}")
        check_precision(self.precision)
        if not self.ridge > 0:
            raise InputError(f"ridge must be > 0 (inf compensates the mean alone), got {self.ridge}")

    def build(self, data: BlockData) -> nn.Module:
        """Choose the units and compensate for the others; see `LightForm.fit`.

        Raises:
            InputError: also for a lone Linear, which has no hidden units.
        """
        if len(data.linears) < 2:
            raise InputError(f"{self} leaves out hidden units; a lone Linear has none")
        key = ("Pruned", self.energy, self.ridge)
        if key not in data.kept:
            data.kept[key] = self._dense(data)
        layers = [cast_linear(self.precision, dense, rows) for dense, rows in data.kept[key]]
        return light_chain(layers, data.activations)

    def _dense(self, data: BlockData) -> list[tuple[DenseLinear, Tensor]]:
        """Return the smaller Linears in float32, and what each takes in."""
        linears, inputs = data.linears, data.inputs
        kept = [self._units(data.mean_square(i), linears[i].weight) for i in range(1, len(linears))]
        layers = [(_first(linears[0], kept[0]), inputs[0])]
        for i, linear in enumerate(linears[1:]):
            before, taken = layers[-1]
            rows, wanted = data.activations[i](before(taken)), linear(inputs[i + 1])
            columns = linear.weight.detach()[:, kept[i]]
            outs = kept[i + 1] if i + 1 < len(kept) else torch.arange(linear.out_features)
            if i == 0 and data.moments is not None:  # what reaches later ones depends on what was left out before
                made = self._compensate(_left_by_moments(data.moments[1], linear, kept[0], outs), columns[outs])
            else:
                made = self._compensate(_left_by_rows(rows, wanted[:, outs], columns[outs]), columns[outs])
            layers.append((DenseLinear(*made), rows))
        return layers

    def count(self, energy: Tensor) -> int:
        """Return how many units are kept, from the energies of all."""
        alive = int((energy > 0).sum())
        share = energy.sort(descending=True).values.cumsum(0) / energy.sum().clamp_min(1e-300)
        # the running sum reaches the whole only up to rounding: energy=1.0 means every unit that ever fired
        count = alive if self.energy == 1 else min(alive, int((share < self.energy).sum()) + 1)
        return min(len(energy), -(-max(count, 1) // VECTOR) * VECTOR)

    def _units(self, mean_square: Tensor, following: Tensor) -> Tensor:
        """Return the indices of the kept units, ascending."""
        energy = unit_energy(mean_square, following)
        return energy.topk(self.count(energy)).indices.sort().values

    def _compensate(self, left: Left, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return weight and bias that map the kept units to all that is wanted, starting from `weight`."""
        if math.isinf(self.ridge):
            return weight.clone(), left.offset.to(weight.dtype)
        mean, gram, cross = left.kept()
        penalty = self.ridge * gram.diagonal().mean().clamp_min(1e-30)
        gram.diagonal().add_(penalty)
        step = torch.linalg.solve(gram, cross).t()
        return (weight.double() + step).to(weight.dtype), (left.offset - step @ mean).to(weight.dtype)


class Left(NamedTuple):
    """What the kept units leave of what is wanted: `wanted - W h`.

    Attributes:
        offset: f64[out], its mean.
        kept: returns the kept units' mean f64[k], the products of what they differ from it by f64[k, k], and of that with what
            is left f64[k, out]; to one scale.
    """

    offset: Tensor
    kept: Callable[[], tuple[Tensor, Tensor, Tensor]]


def _left_by_rows(rows: Tensor, wanted: Tensor, weight: Tensor) -> Left:
    """Return what kept units, f32[N, k], leave of what is wanted, f32[N, out]."""
    h, left = rows.double(), wanted.double() - rows.double() @ weight.double().t()
    offset = left.mean(0)

    def kept() -> tuple[Tensor, Tensor, Tensor]:
        mean = h.mean(0)
        centred = h.sub_(mean)
        return mean, centred.t() @ centred, centred.t() @ (left - offset)

    return Left(offset, kept)


def _left_by_moments(moments: Moments, linear: nn.Linear, units: Tensor, outs: Tensor) -> Left:
    """Return the same of the moments of all units: what is left is what the others give, and the bias."""
    others = torch.ones(len(moments.mean), dtype=torch.bool).index_fill(0, units, False)
    weight = linear.weight.detach().double()[outs][:, others]
    bias = 0.0 if linear.bias is None else linear.bias.detach().double()[outs]

    def kept() -> tuple[Tensor, Tensor, Tensor]:
        scatter = moments.scatter[units]
        return moments.mean[units], scatter[:, units], scatter[:, others] @ weight.t()

    return Left(weight @ moments.mean[others] + bias, kept)


def unit_energy(mean_square: Tensor, following: Tensor) -> Tensor:
    """Return f64[n], the energy of hidden units; see the module's docstring.

    Args:
        mean_square: f64[n], of their values.
        following: f32[out, n], the weights of the next Linear.
    """
    energy: Tensor = mean_square * following.detach().double().square().sum(0)
    return energy


def _first(linear: nn.Linear, kept: Tensor) -> DenseLinear:
    bias = None if linear.bias is None else linear.bias.detach()[kept]
    return DenseLinear(linear.weight.detach()[kept], bias)
