"""A gate that the caller brings: `gate=MyGate()`, any `nn.Module`."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dendrofx.errors import InputError
from dendrofx.gates.form import GateForm, ModelRows, SiteRows
from dendrofx.graph.show import first_line
from dendrofx.lowering.script import lowered
from dendrofx.runtime.model_scores import UserScore

SMALLEST_ERROR = 1e-7


class UserGateError(InputError):
    """A gate of the caller's that cannot be used."""


@dataclass(frozen=True)
class UserGate(GateForm):
    """A module of the caller's.

    The protocol: `forward(x) -> f32[N]`, larger where x is in more doubt, each value from its own row of x alone, and scriptable.
    x is f32[N, in], the rows that reach the block; at model scope the output of the light model that the budget is about. Values
    need no unit: they are mapped to errors by an increasing curve `exp(a + b value)`, fitted by least squares on calibration rows.
    Two attributes are read where they are there: `margin`, how far a value may move with the batch, relative to itself (1e-3), and
    `macs`, its multiply-adds per row (0).

    Args:
        module: the caller's.

    Example:
        >>> gate = nn.Sequential(nn.Linear(64, 1), nn.Flatten(0))
        >>> routed = dendrofx.transform(model, calibration=batches, sites="stem", gate=gate)
    """

    module: nn.Module
    needs_rows = True

    def __str__(self) -> str:
        return f"{type(self.module).__name__}()"

    def to_json(self) -> dict[str, Any]:
        """Write the name alone: to replay a plan, the caller brings the module again."""
        return NotKept(str(self)).to_json()

    @torch.no_grad()
    def fit_site(self, site: SiteRows) -> nn.Module:
        """See `GateForm.fit`."""
        rows, error = self.required(site)
        return self._fitted(rows, error)

    @torch.no_grad()
    def fit_model(self, rows: ModelRows) -> nn.Module:
        """See `GateForm.fit`."""
        return self._fitted(rows.light, rows.losses)

    def _fitted(self, x: Tensor, error: Tensor) -> nn.Module:
        module = copy.deepcopy(self.module).eval().requires_grad_(False)  # the caller may go on with theirs
        values = self._values(module, x)
        self._check(module, x, values)
        z, y = values.double(), error.double().clamp_min(SMALLEST_ERROR).log()
        spread = float(z.std(correction=0)) if len(z) else 0.0
        centred = z - z.mean()
        slope = float((centred * (y - y.mean())).sum() / centred.square().sum()) if spread > 0 else 0.0
        slope = max(slope, 1e-3 / spread if spread > 0 else 0.0)  # the caller's order is kept, whatever the errors say
        offset = float(y.mean()) - slope * float(z.mean())
        margin = float(getattr(self.module, "margin", 1e-3)) * slope * float(z.abs().max())
        return UserScore(module, offset, slope, margin, int(getattr(self.module, "macs", 0)))

    def _check(self, module: nn.Module, x: Tensor, values: Tensor) -> None:
        """Raise where values depend on other rows, or the module does not script."""
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[: max(len(x) // 2, 1)]
        close = 1e-3 * float(values.std(correction=0)) + 1e-6
        for index in (order, order[:1]):
            if not torch.allclose(self._values(module, x[index]), values[index], rtol=1e-3, atol=close):
                raise UserGateError(
                    f"gate {self} gives a row another value among other rows: it must read each row of x alone"
                )
        try:
            lowered(module)
        except Exception as error:
            raise UserGateError(f"gate {self} cannot be scripted with TorchScript: {first_line(error)}") from error

    def _values(self, module: nn.Module, x: Tensor) -> Tensor:
        try:
            values = module(x)
        except Exception as error:
            raise UserGateError(f"gate {self} failed on x {tuple(x.shape)}: {first_line(error)}") from error
        if not isinstance(values, Tensor) or values.shape != (len(x),) or not values.is_floating_point():
            shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise UserGateError(
                f"gate {self} returned {shape} for x {tuple(x.shape)}: a gate gives one float per row, f32[N]"
            )
        if not bool(values.isfinite().all()):
            raise UserGateError(
                f"gate {self} gave values that are not finite on calibration rows: clamp what it computes"
            )
        return values


@dataclass(frozen=True)
class NotKept(GateForm):
    """In a plan that was read from a file, the place of a gate that the caller brought.

    Args:
        name: of its class.
    """

    name: str

    def fit(self, evidence: SiteRows | ModelRows) -> nn.Module:
        """Raise `InputError`: there is nothing to fit."""
        raise InputError(f"gate {self.name} is a module of yours, which plans do not keep: pass it again as gate=")
