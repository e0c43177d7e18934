"""Second moments of vectors, that are added up over parts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """How many vectors there were, their mean, and their scatter around it.

    Two are added by T. Chan, G. Golub and R. LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances",
    1979: sums of squares that are taken around zero would cancel where means are large.

    Attributes:
        count: of the vectors.
        mean: f64[n].
        scatter: f64[n, n], the sum of the products of what they differ from the mean by.

    Example:
        >>> Moments.of(rows[:100]) + Moments.of(rows[100:])
        Moments of 332 vectors of 64 numbers
    """

    count: int
    mean: Tensor
    scatter: Tensor

    @staticmethod
    def of(rows: Tensor) -> Moments:
        """Return the moments of f32[N, n]; of no rows they are zero."""
        x = rows.double()
        mean = x.mean(0) if len(x) else x.new_zeros(x.size(1))
        centred = x - mean
        return Moments(len(x), mean, centred.t() @ centred)

    def __add__(self, other: Moments) -> Moments:
        count = self.count + other.count
        apart = other.mean - self.mean
        mean = self.mean + apart * (other.count / max(count, 1))
        between = torch.outer(apart, apart) * (self.count * other.count / max(count, 1))
        return Moments(count, mean, self.scatter + other.scatter + between)

    @property
    def covariance(self) -> Tensor:
        """f64[n, n], divided by the count."""
        return self.scatter / max(self.count, 1)

    @property
    def mean_square(self) -> Tensor:
        """f64[n], of each number."""
        return self.covariance.diagonal() + self.mean.square()

    def rows(self) -> Tensor:
        """Return f64[n, n]: rows with the same sum of products `X' X` as the vectors have, around zero."""
        total = self.scatter + self.count * torch.outer(self.mean, self.mean)
        values, vectors = torch.linalg.eigh(total)
        made: Tensor = values.clamp_min(0).sqrt()[:, None] * vectors.t()
        return made

    def __repr__(self) -> str:
        return f"Moments of {self.count:,} vectors of {len(self.mean)} numbers"
