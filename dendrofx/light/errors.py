"""What a light form would err on a site, in closed form: nothing is fitted, and no branch runs.

Forms come in families whose members differ in size. What a member of size k leaves out of one Linear's result is

    sum over i >= k of  g_i c_i(row)        g_i: a direction of the result, c_i: how far the row goes along it

    low rank    g = U, c = U' W x           U: principal directions of the results ("whitened")
                g = W Q, c = Q' x           Q: of the inputs ("input") or of the weights ("weight")
    pruned      g = W2[:, i], c = h_i - mean(h_i)      hidden units in the order of their energy, means compensated
                g = (W2 L)[:, i], c = L^-1 (h - mean)  with ridge: L L' the covariance of the units in that order, plus penalty.
                                                       c_i is what the units before i do not predict of unit i

so the mean square error of every size at once is a sum over the tail of one matrix, `(G' K G) * E[c c']`: the whitened spectrum
(Eckart and Young, 1936) where G is orthonormal and c uncorrelated. Directions are those of the rows that light branches are
fitted on; the expectation is over other rows, so that what was learnt by heart counts as an error.

**Through a chain.** K says what the output makes of an error of this Linear's result: the identity for the last one, and before it

    K = E[d d'] * (W' K_next W)             d: slopes of the activation on the rows

which is exact to first order where the slopes do not depend on the error. Errors of several Linears, and rounding noise
(`Precision.noise`, which takes the diagonal of K alone), are taken as independent: their squares are added.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dendrofx.graph.block import BlockData, principal_directions
from dendrofx.light.form import LightForm, Precision
from dendrofx.light.low_rank import LowRank
from dendrofx.light.pruned import Pruned, unit_energy

# A row counts by its relative error; rows whose output is this much smaller than usual would drown all others.
SMALLEST_OUTPUT = 1e-3


@dataclass(frozen=True)
class Family:
    """The members of a family at one Linear.

    Attributes:
        inner: f32[n, in], what makes the codes of a low rank; empty for pruning.
        outer: f32[out, n], the directions of the result.
        codes: f32[N, n].
        squares: f64[n + 1], by size the mean square of the block's relative error that comes of it.
    """

    inner: Tensor
    outer: Tensor
    codes: Tensor
    squares: Tensor


class FormErrors:
    """The closed-form errors of a site's forms; see the module's docstring.

    Args:
        fit: the block, and the rows that light branches are fitted on.
        seen: the same block and other rows, on which errors are expected.

    Example:
        >>> errors = FormErrors(BlockData(block, rows), BlockData(block, other_rows))
        >>> errors.of(LowRank(32, "whitened")), errors.of(Int8())
    """

    def __init__(self, fit: BlockData, seen: BlockData) -> None:
        self.fit, self.seen, self.weights = fit, seen, [linear.weight.detach() for linear in fit.linears]
        size = seen.outputs.norm(dim=1)
        least = SMALLEST_OUTPUT * float(size.square().mean().sqrt())
        self.share = 1 / size.clamp_min(max(least, 1e-12)).square() / len(size)
        self._families: dict[tuple[int, str, float], Family] = {}
        self._roundings: dict[tuple[Precision | None, int, int, int], float] = {}

    @torch.no_grad()
    def of(self, form: LightForm) -> float:
        """Return the root of the mean square of a form's relative output error, over rows that fitted nothing.

        Raises:
            NotImplementedError: a form that none of the families describes.
        """
        squares = [self._square(form, i) for i in range(len(self.weights))]
        return math.sqrt(max(sum(squares), 0.0))

    def linears(self, form: LightForm) -> list[tuple[int, int]]:
        """Return inputs and outputs of the Linears that a form's branch has."""
        shapes = [(w.size(1), w.size(0)) for w in self.weights]
        if isinstance(form, LowRank):
            thin = [[(n, r), (r, m)] if (r := self._rank(form, i)) else [(n, m)] for i, (n, m) in enumerate(shapes)]
            return [pair for pairs in thin for pair in pairs]
        if isinstance(form, Pruned):
            kept = [self._kept(form, i) for i in range(1, len(shapes))]
            return list(zip([shapes[0][0], *kept], [*kept, shapes[-1][1]], strict=True))
        return shapes

    def _square(self, form: LightForm, index: int) -> float:
        """Return what one Linear adds to the mean square."""
        weight, rows = self.weights[index], self.seen.inputs[index]
        if isinstance(form, Precision):
            return self._noise(form, weight, rows, self._passed[index])
        if isinstance(form, LowRank):
            if not (rank := self._rank(form, index)):
                return self._noise(form.precision, weight, rows, self._passed[index])
            family = self._low_rank(index, form.basis)
            first = self._noise(form.precision, family.inner[:rank], rows, self._along(index, family.outer[:, :rank]))
            outer, codes = family.outer[:, :rank].contiguous(), family.codes[:, :rank]
            second = self._noise(form.precision, outer, codes, self._passed[index])
            return float(family.squares[min(rank, family.codes.size(1))]) + first + second
        if isinstance(form, Pruned):
            return self._pruned_square(form, index)
        raise NotImplementedError(f"{form} has no closed-form error")

    def _pruned_square(self, form: Pruned, index: int) -> float:
        taken = self._kept(form, index) if index > 0 else self.weights[0].size(1)
        given = self._kept(form, index + 1) if index + 1 < len(self.weights) else len(self.weights[-1])
        dropped = float(self._pruned(index, form.ridge).squares[taken]) if index > 0 else 0.0
        key = (form.precision, index, taken, given)  # forms that keep as many units keep the same
        if form.precision is not None and key not in self._roundings:
            weight, rows, passed = self.weights[index], self.seen.inputs[index], self._passed[index]
            if index > 0:
                kept = self._order[index][:taken]
                weight, rows = weight[:, kept], rows[:, kept]
            if index + 1 < len(self.weights):
                kept = self._order[index + 1][:given]
                weight, passed = weight[kept], passed[kept]
            self._roundings[key] = self._noise(form.precision, weight, rows, passed)
        return dropped + self._roundings.get(key, 0.0)

    def _noise(self, precision: Precision | None, weight: Tensor, rows: Tensor, passed: Tensor) -> float:
        return 0.0 if precision is None else float(precision.noise(weight, rows, self.share) @ passed)

    def _rank(self, form: LowRank, index: int) -> int:
        """Return the rank that a Linear gets; 0 where it saves nothing and the Linear stays whole."""
        weight = self.weights[index]
        return 0 if form.rank * sum(weight.shape) >= weight.numel() else form.rank

    def _kept(self, form: Pruned, index: int) -> int:
        return form.count(self._energy[index])

    @cached_property
    def _energy(self) -> dict[int, Tensor]:
        """By Linear but the first, the energies of the units that it reads."""
        return {i: unit_energy(self.fit.mean_square(i), w) for i, w in enumerate(self.weights) if i > 0}

    @cached_property
    def _order(self) -> dict[int, Tensor]:
        return {i: energy.argsort(descending=True, stable=True) for i, energy in self._energy.items()}

    @cached_property
    def _metrics(self) -> list[Tensor | None]:
        """By Linear, K; None is the identity."""
        found: list[Tensor | None] = [None]
        for i in reversed(range(len(self.weights) - 1)):
            before = self.fit.linears[i](self.seen.inputs[i])
            slopes = _slopes(self.fit.activations[i], before)
            gram = self._gram(self.weights[i + 1], found[0])
            found.insert(0, (slopes.t() @ slopes / len(slopes)).mul_(gram))
        return found

    @cached_property
    def _passed(self) -> list[Tensor]:
        """By Linear f32[out], the diagonal of K: what the output makes of an error of each unit alone."""
        pairs = zip(self.weights, self._metrics, strict=True)
        return [w.new_ones(len(w)) if k is None else k.diagonal().clone() for w, k in pairs]

    @staticmethod
    def _gram(outer: Tensor, metric: Tensor | None) -> Tensor:
        return outer.t() @ (outer if metric is None else metric @ outer)

    def _along(self, index: int, outer: Tensor) -> Tensor:
        metric = self._metrics[index]
        return (outer * (outer if metric is None else metric @ outer)).sum(0)

    def _family(self, index: int, inner: Tensor, outer: Tensor, codes: Tensor, left: Tensor | None = None) -> Family:
        """Return a family with its errors; `left` is f32[N, out], what no member has."""
        metric = self._metrics[index]
        matrix = self._gram(outer, metric).mul_(codes.t() @ (codes * self.share[:, None]))
        tails = matrix.diagonal().double() + 2 * matrix.triu(1).sum(1, dtype=torch.float64)
        squares = torch.cat([tails.flip(0).cumsum(0).flip(0), tails.new_zeros(1)]).clamp_min(0)
        if left is not None:
            whole = (left * (left if metric is None else left @ metric)).sum(1)
            squares += float(self.share @ whole)
        return Family(inner, outer, codes, squares)

    def _low_rank(self, index: int, basis: str) -> Family:
        key = (index, basis, 0.0)
        if key not in self._families:
            weight, rows = self.weights[index], self.seen.inputs[index]
            directions, results = self._directions(index, basis), rows @ weight.t()
            whitened = basis == "whitened"
            inner = directions.t() @ weight if whitened else directions.t()
            outer = directions if whitened else weight @ directions
            codes = rows @ inner.t()
            self._families[key] = self._family(index, inner, outer, codes, results - codes @ outer.t())
        return self._families[key]

    def _directions(self, index: int, basis: str) -> Tensor:
        """Return those of `BlockData.directions` that a rank which saves anything can have."""
        weight, rows = self.weights[index], self.fit.spread(index)
        if basis == "whitened":
            few = rows.size(1) < min(len(rows), len(weight))  # R has the second moment of the rows, in fewer of them
            matrix = (torch.linalg.qr(rows, mode="r").R if few else rows) @ weight.t().to(rows.dtype)
        else:
            matrix = weight if basis == "weight" else rows
        return principal_directions(matrix, weight.numel() // sum(weight.shape) + 1).to(weight.dtype)

    def _units(self, index: int, order: Tensor, with_scatter: bool) -> tuple[Tensor, Tensor | None]:
        """Return the mean f32[n] of the units that a Linear reads, on the fitting rows, and f64[n, n], their scatter."""
        if (moments := self.fit.moments) is not None:
            mean = moments[index].mean[order].to(self.weights[index].dtype)
            return mean, moments[index].scatter[order][:, order] if with_scatter else None
        hidden = self.fit.inputs[index][:, order]
        mean = hidden.mean(0)
        centred = (hidden - mean).double()
        return mean, centred.t() @ centred if with_scatter else None

    def _pruned(self, index: int, ridge: float) -> Family:
        key = (index, "pruned", ridge)
        if key not in self._families:
            order = self._order[index]
            mean, scatter = self._units(index, order, with_scatter=not math.isinf(ridge))
            outer, codes = self.weights[index][:, order], self.seen.inputs[index][:, order] - mean
            if scatter is not None:
                lower = _penalised(scatter, ridge)
                outer = (outer.double() @ lower).to(outer.dtype)
                codes = torch.linalg.solve_triangular(lower, codes.double().t(), upper=False).t().to(outer.dtype)
            self._families[key] = self._family(index, outer[:0], outer, codes)
        return self._families[key]


def _penalised(gram: Tensor, ridge: float) -> Tensor:
    """Return f64[n, n], the Cholesky factor of the units' scatter plus each one's penalty: that of the set that it completes."""
    counts = torch.arange(1, len(gram) + 1, dtype=gram.dtype)
    penalty = ridge * gram.diagonal().cumsum(0) / counts
    gram.diagonal().add_(penalty.clamp_min(1e-30) + 1e-12 * float(gram.diagonal().max()))
    lower: Tensor = torch.linalg.cholesky(gram)
    return lower


@torch.enable_grad()
def _slopes(activation: torch.nn.Module, before: Tensor) -> Tensor:
    given = before.detach().requires_grad_()
    (slopes,) = torch.autograd.grad(activation(given + 0).sum(), given)
    return slopes
