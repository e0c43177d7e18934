"""Rows that are not finite take the full branch, whatever gate and light form a site has."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dendrofx
from dendrofx.gates import EnergyGate, GateForm, LearnedGate, NoiseGate, OracleGate, ResidualGate
from dendrofx.light import BFloat16, Int8, LightForm, LowRank, Pruned

ROWS, WIDTH = 12, 24
LIGHTS: list[LightForm] = [LowRank(2), LowRank(2, "whitened"), LowRank(2, "input"), Pruned(0.9), Int8(), BFloat16()]


class Constant(nn.Module):
    """A gate of the caller's that does not look."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros(x.size(0), dtype=torch.float32)


GATES: dict[str, GateForm | nn.Module] = {
    "residual": ResidualGate(),
    "noise": NoiseGate(),
    "energy": EnergyGate(),
    "learned": LearnedGate(),
    "light": LearnedGate(reads="light"),
    "scales": LearnedGate(reads="scales"),
    "oracle": OracleGate(),
    "the caller's": Constant(),
}
FITS = {
    **dict.fromkeys(GATES, LIGHTS),
    "residual": [LowRank(2), LowRank(2, "input")],
    "noise": [Int8(), BFloat16()],
    "scales": [Int8()],
}


def not_finite() -> tuple[Tensor, list[int]]:
    """Rows, and which of them are not finite: one value or all of them."""
    x = torch.randn(ROWS, WIDTH)
    for i, value in enumerate([torch.nan, torch.inf, -torch.inf]):
        x[2 * i, 3] = value
        x[2 * i + 1] = value
    x[6, :2] = torch.tensor([torch.inf, -torch.inf])
    return x, list(range(7))


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.GELU])
@pytest.mark.parametrize("gate", GATES)
def test_rows_that_are_not_finite_are_hard_at_every_tolerance(gate: str, activation: type[nn.Module]) -> None:
    model = nn.Sequential(nn.Linear(WIDTH, 64), activation(), nn.Linear(64, 8)).eval().requires_grad_(False)
    options: dict[str, Any] = {"decide": False, "max_deviation": 0.5, "tune_seconds": 0, "gate": GATES[gate]}
    data = [torch.randn(40, WIDTH) for _ in range(8)]
    for light in FITS[gate]:
        made = dendrofx.transform(model, calibration=data, light=light, **options)
        (name,) = dendrofx.tolerances(made)
        dendrofx.set_tolerances(made, {name: torch.inf})
        x, bad = not_finite()
        got, counts = made.forward_counted(x)
        assert counts["0..2"]["hard_rows"] == len(bad), light
        torch.testing.assert_close(got[bad], model(x)[bad], equal_nan=True, rtol=1e-5, atol=1e-6)
        scripted = dendrofx.script(made)(x)
        torch.testing.assert_close(scripted[bad], model(x)[bad], equal_nan=True, rtol=1e-5, atol=1e-6)
