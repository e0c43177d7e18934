"""The learned gate: ridge regression on cheap features of a row, or of what the light branch made of it, in closed form."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from dendrofx.errors import InputError
from dendrofx.gates.form import GateForm, ModelRows, Reads, SiteRows
from dendrofx.gates.model import fit_learned
from dendrofx.gates.ridge import fit_range, fit_weights
from dendrofx.graph.block import principal_directions
from dendrofx.runtime.branches import Int8Chain
from dendrofx.runtime.scores import LearnedLightScore, LearnedScaleScore, LearnedScore


@dataclass(frozen=True)
class LearnedGate(GateForm):
    """Predicts the log of a row's error from its norm and its code in a few principal directions.

    The weights are the ridge solution `w = (Z'Z + ridge n I)^-1 Z' log(error)` over the standardised features Z of n
    calibration rows (Hoerl and Kennard, 1970): no iteration, no randomness. A row is not judged (score 1e30) when its largest
    standardised feature exceeds that of all calibration rows: one number, so that of new rows of the same kind only about
    1 in n does, however many features there are (n far above the features, which are standardised on the same rows).

    Args:
        directions: principal directions of the calibration rows in the code, at most their width.
        ridge: penalty relative to the number of rows; None takes the one with the least leave-one-out error.
        reads: "input": features of the row. "light": features of the light branch's output, which then runs on every
            row: next to free where the site is wide and its output narrow. "scales": the logarithms of the scales that an
            int8 light branch quantises its rows with, one per Linear; they are there anyway.

    Example:
        >>> routed = dendrofx.transform(model, calibration=batches, gate=dendrofx.LearnedGate(directions=4))
    """

    directions: int = field(default=8, metadata={"shown": True})
    ridge: float | None = None
    reads: Reads = "input"
    needs_rows = True

    def __post_init__(self) -> None:
        if self.directions < 1:
            raise InputError(f"directions must be >= 1, got {self.directions}")
        if self.ridge is not None and not self.ridge > 0:
            raise InputError(f"ridge must be > 0, got {self.ridge}")
        if self.reads not in ("input", "light", "scales"):
            raise InputError(f"reads must be 'input', 'light' or 'scales', got {self.reads!r}")

    @torch.no_grad()
    def fit_site(self, site: SiteRows) -> nn.Module:
        """Solve for the weights; see `GateForm.fit`."""
        rows, error = self.required(site)
        gate, rows, ranged = self._gate(site, rows)
        features = gate.features(rows)
        usable = features.isfinite().all(1)
        if not bool(usable.any()):
            gate.scale.fill_(torch.inf)
            return gate
        fit_range(gate, gate.features(ranged))
        fit_weights(gate, features[usable], error[usable], self.ridge)
        return gate

    def fit_model(self, rows: ModelRows) -> nn.Module:
        """Solve for the weights of features of the light model's output (`LearnedModelScore`); see `fit_learned`."""
        return fit_learned(rows, self.directions, self.ridge)

    def _gate(self, site: SiteRows, rows: Tensor) -> tuple[LearnedScore | LearnedScaleScore, Tensor, Tensor]:
        """Return the unfitted gate, and what it takes its features from: on the rows, and on those that show their range."""
        if self.reads == "scales":
            if not isinstance(site.light, Int8Chain):
                raise InputError(
                    f"{self} reads the scales of int8 light branches; take LearnedGate() for this light form"
                )
            ranged = site.ranged(lambda x: site.runs.read(x, "scales").evidence)
            seen = site.runs.read(rows, "scales").evidence
            return LearnedScaleScore(seen.size(1)), seen, ranged
        if self.reads == "light":
            out, ranged = site.runs.read(rows, "light").out, site.ranged(lambda x: site.runs.read(x, "light").out)
            return LearnedLightScore(principal_directions(out, self.directions).t()), out, ranged
        directions = site.data.directions(0, "input")[:, : self.directions].t()
        return LearnedScore(directions), rows, site.ranged(lambda x: x)
