"""Light branches that are fitted to moments are those that are fitted to the rows behind them."""

import pytest
import torch
from torch import nn

from dendrofx.graph.block import BlockData
from dendrofx.light import LightForm, LowRank, Pruned
from dendrofx.light.errors import FormErrors
from dendrofx.statistics.moments import Moments

FORMS = [
    LowRank(5, "input"),
    LowRank(5, "whitened"),
    Pruned(0.9),
    Pruned(0.9, ridge=1e-2),
]


def blocks(bias: bool) -> list[nn.Sequential]:
    return [
        nn.Sequential(nn.Linear(24, 64, bias), nn.ReLU(), nn.Linear(64, 12, bias)),
        nn.Sequential(nn.Linear(24, 48, bias), nn.GELU(), nn.Linear(48, 48, bias), nn.Tanh(), nn.Linear(48, 8, bias)),
    ]


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("which", [0, 1])
def test_a_fit_to_moments_is_that_to_rows(form: LightForm, bias: bool, which: int) -> None:
    block, rows, few = blocks(bias)[which].eval(), torch.randn(400, 24) + 0.5, 400 if which else 30
    of_rows = BlockData(block, rows)
    moments = [Moments.of(x[:150]) + Moments.of(x[150:]) for x in of_rows.inputs]
    by_moments = BlockData(block, rows[:few], moments)  # a third Linear of a pruned block takes the rows themselves
    with torch.no_grad():
        torch.testing.assert_close(form.fit_data(by_moments)(rows), form.fit_data(of_rows)(rows), rtol=1e-4, atol=1e-4)
    seen = BlockData(block, torch.randn(300, 24))
    errors = [FormErrors(fit, seen).of(form) for fit in (by_moments, of_rows)]
    assert errors[0] == pytest.approx(errors[1], rel=1e-4)
