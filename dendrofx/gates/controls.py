"""Controls: gates that no one would deploy, against which the others are measured."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

from dendrofx.errors import InputError
from dendrofx.gates.form import GateForm, ModelRows, SiteRows
from dendrofx.runtime.control_scores import ConstantScore, OracleScore, RandomScore


@dataclass(frozen=True)
class AlwaysFull(GateForm):
    """Every row takes the full branch, at every tolerance.

    Example:
        >>> every = dendrofx.Options(decide=False)
        >>> full = dendrofx.transform(model, calibration=batches, gate=dendrofx.AlwaysFull(), options=every)
    """

    def fit_site(self, site: SiteRows) -> nn.Module:
        """See `GateForm.fit`."""
        return ConstantScore(math.inf)


@dataclass(frozen=True)
class AlwaysLight(GateForm):
    """Every row takes the light branch at every tolerance above 0: the static approximation, without routing.

    Example:
        >>> light = dendrofx.transform(model, calibration=batches, gate=dendrofx.AlwaysLight())
    """

    def fit_site(self, site: SiteRows) -> nn.Module:
        """See `GateForm.fit`."""
        return ConstantScore(0.0)

    def fit_model(self, rows: ModelRows) -> nn.Module:
        """Take the light model alone."""
        return ConstantScore(0.0)


@dataclass(frozen=True)
class NoGate(AlwaysLight):
    """Every row takes the light branch, and neither gate nor full branch is kept: not in the graph, in memory, or in a file.

    What `gate="optional"` lets the search choose. Rows that are not finite raise, since nothing is left to run them on.

    Example:
        >>> fast = dendrofx.transform(model, calibration=batches, gate=dendrofx.NoGate())
    """

    def fit_model(self, rows: ModelRows) -> nn.Module:
        """Refuse: a cascade without its full model is the light model."""
        raise InputError("NoGate() is for blocks (scope='block'): a cascade keeps its full model")


@dataclass(frozen=True)
class RandomGate(GateForm):
    """A share `rate` of the rows takes the full branch, chosen by a seeded hash of the row's own bits.

    Args:
        rate: expected share of hard rows, in [0, 1], at every tolerance above 0.
        seed: another seed, another choice.

    Example:
        >>> chance = dendrofx.transform(model, calibration=batches, gate=dendrofx.RandomGate(rate=0.1))
    """

    rate: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise InputError(f"rate must be in [0, 1], got {self.rate}")

    def fit_site(self, site: SiteRows) -> nn.Module:
        """See `GateForm.fit`."""
        return RandomScore(self.rate, self.seed)


@dataclass(frozen=True)
class OracleGate(GateForm):
    """The true error as the score: what a perfect gate would do. It runs both branches, so it has no speed.

    Example:
        >>> best = dendrofx.transform(model, calibration=batches, gate=dendrofx.OracleGate())
    """

    reads = "light"

    def fit_site(self, site: SiteRows) -> nn.Module:
        """See `GateForm.fit`."""
        return OracleScore(site.data.block)
