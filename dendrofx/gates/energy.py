"""The energy gate: the seed idea of per-row routing, kept as a yardstick."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from dendrofx.gates.form import GateForm, SiteRows
from dendrofx.runtime.scores import EnergyScore

ROUNDING = 1e-6  # of a logarithm in float32: the extreme calibration rows lie inside their own range


@dataclass(frozen=True)
class EnergyGate(GateForm):
    """Mean absolute activation of the row, mapped to an error by a straight line in log-log, fitted by least squares.

    Per row, never relative to the batch: a row's score is the same alone and among others. Rows whose energy lies
    outside the calibrated range are not judged (score 1e30).

    Example:
        >>> routed = dendrofx.transform(model, calibration=batches, gate=dendrofx.EnergyGate())
    """

    needs_rows = True

    @torch.no_grad()
    def fit_site(self, site: SiteRows) -> nn.Module:
        """Fit the line; see `GateForm.fit`."""
        rows, error = self.required(site)
        energy = rows.abs().mean(1)
        seen = energy > 0
        x, y = energy[seen].double().log(), error[seen].double().clamp_min(1e-7).log()
        if len(x) == 0:  # nothing but zero rows: no row can be judged
            return EnergyScore(0.0, 0.0, 0.0, -1.0)
        dx = x - x.mean()
        slope = float((dx * (y - y.mean())).sum() / dx.square().sum().clamp_min(1e-12))
        offset = float(y.mean()) - slope * float(x.mean())
        seen_energy = site.ranged(lambda x: x.abs().mean(1))
        logs = seen_energy[seen_energy > 0].double().log()
        low, high = float(logs.min()), float(logs.max())
        return EnergyScore(offset, slope, (low + high) / 2, (high - low) / 2 + ROUNDING)
