"""What the calls of a cascade cost, over the original's: counted, or from what its models take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Protocol

import numpy as np

from dendrofx.gates import GateForm
from dendrofx.search.cascade.lights import LightModel
from dendrofx.search.cost import WEIGHT_ROWS


class Staged(Protocol):
    """A cascade: a light model, the full one, and a later exit behind it."""

    @property
    def light(self) -> LightModel:
        """The light model."""

    @property
    def full(self) -> str:
        """The name of the full model."""

    @property
    def form(self) -> GateForm:
        """Of the gate."""

    @property
    def later(self) -> Staged | None:
        """A second exit."""

    def goes_on(self, threshold: float) -> list[float]:
        """Return the share of samples that are in doubt at each exit."""


@dataclass(frozen=True)
class CallTimes:
    """What a call costs, at one batch size, over the original's call.

    Attributes:
        batch: samples.
        light: by light model.
        full: samples and cost of what samples in doubt run, ascending: by full model, and of an exit by its light model.
        gate: by gate form, of scores and of finding that no sample is in doubt; counted as nothing.
    """

    batch: int
    light: dict[str, float]
    full: dict[str, tuple[tuple[int, float], ...]]
    gate: dict[str, float] = field(default_factory=dict)

    def cost(self, found: Staged, threshold: float) -> float:
        """Return the expected cost of a cascade at a threshold."""
        gate, shares = self.gate.get(str(found.form), 0.0), found.goes_on(threshold)
        first = self.light[found.light.name] + gate
        if found.later is None:
            return first + self._expected(found.full if found.light.rest is None else found.light.name, shares[0])
        then = found.later.light.name
        second = self._expected(f"to {then}", shares[0]) + self._expected(then, shares[1])
        return first + gate * min(self.batch * shares[0], 1.0) + second

    def _expected(self, name: str, activity: float) -> float:
        """Return the expected cost of what runs on samples each of which comes with probability `activity`."""
        counts, chance = np.arange(self.batch + 1), _chances(self.batch, activity)
        cost = np.interp(counts, [n for n, _ in self.full[name]], [c for _, c in self.full[name]])
        return float((chance * np.where(counts > 0, cost, 0.0)).sum())


@cache
def _chances(batch: int, activity: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the chance of each count of samples in doubt, of a batch."""
    from scipy.stats import binom  # takes a second to import

    found: np.ndarray[tuple[int], np.dtype[np.float64]] = binom.pmf(np.arange(batch + 1), batch, activity)
    return found


def counted_times(
    lights: Sequence[LightModel], later: Sequence[LightModel], fulls: Mapping[str, float], sizes: Sequence[int]
) -> list[CallTimes]:
    """Return counted costs: multiply-adds, and for few samples what reading the weights takes; see `search/cost.py`.

    Args:
        lights: the light models.
        later: second exits.
        fulls: work of the full models, by name, over the original's.
        sizes: samples per call.
    """
    rests = {x.name: fulls[x.of] * x.rest.work for x in (*lights, *later) if x.rest is not None}
    work = {**fulls, **rests, **{f"to {x.name}": x.work for x in later}}
    return [
        CallTimes(
            size,
            {light.name: light.work for light in lights},
            {
                name: tuple((n, share * (n + WEIGHT_ROWS) / (size + WEIGHT_ROWS)) for n in sorted({1, size}))
                for name, share in work.items()
            },
        )
        for size in sizes
    ]
