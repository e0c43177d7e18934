"""Rows that are not finite take the full branch, whatever gate and light form a site has."""

import pytest
import torch
from torch import Tensor, nn

import dendrofx
from dendrofx.gates import EnergyGate, GateForm, LearnedGate, NoiseGate, OracleGate, ResidualGate, UserGate
from dendrofx.gates.form import LightRuns
from dendrofx.graph.block import BlockData
from dendrofx.light import BFloat16, Int8, LightForm, LowRank, Pruned
from dendrofx.rewriting.cascade import finite_inputs
from dendrofx.runtime.control_scores import OracleScore
from dendrofx.runtime.evidence_scores import NoiseScore, ResidualScore
from dendrofx.runtime.routing import split_rows
from dendrofx.runtime.scores import EnergyScore, LearnedLightScore, LearnedScaleScore, LearnedScore
from dendrofx.search.choose import SiteData, candidates, scores
from dendrofx.values.inputs import Inputs
from tests.models import compressible

ROWS, WIDTH = 12, 24
EIGHT = [Int8(), Int8(weight_bits=7)]  # the second runs without VNNI too
LIGHTS: list[LightForm] = [LowRank(2), LowRank(2, "whitened"), LowRank(2, "input"), Pruned(0.9), *EIGHT, BFloat16()]


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
    "noise": [*EIGHT, BFloat16()],
    "scales": EIGHT,
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
    block = nn.Sequential(nn.Linear(WIDTH, 64), activation(), nn.Linear(64, 8)).eval().requires_grad_(False)
    block[2].weight[:, 16:] *= 1e-3  # units that can be pruned
    data = SiteData(*(BlockData(block, torch.randn(60, WIDTH)) for _ in range(3)))
    form = GATES[gate]
    form = form if isinstance(form, GateForm) else UserGate(form)
    x, bad = not_finite()
    fitted = 0
    for light in FITS[gate]:
        found, reasons = candidates(data, [light], form, None, seed=0)
        assert found or "needs a CPU" in reasons[0], reasons
        for branches in [c.branches for c in found]:
            fitted += 1
            score = scores(form, branches.gate, branches.light, x)
            split = split_rows(score, torch.tensor(torch.inf), 2.0)
            assert split.hard.tolist() == bad, light
            scripted = torch.jit.script(branches.gate)
            read = () if form.reads == "input" else (LightRuns(branches.light).read(x, form.reads),)
            assert split_rows(scripted(x, *read), torch.tensor(torch.inf), 2.0).hard.tolist() == bad, light
    assert fitted


def test_the_sum_is_spared_where_the_score_shows_it() -> None:
    """One sum over the row and two operations of scores where it does not; none where it does."""
    spared = [EnergyScore, LearnedScore, LearnedScaleScore, ResidualScore, NoiseScore]
    for kind in [*spared, LearnedLightScore, OracleScore]:
        assert ("hard_where_not_finite" in kind.forward.__code__.co_names) is (kind not in spared)


class Scored(nn.Module):
    """A sample's features and an additive mask, to logits; a tanh makes all of it finite."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp, self.head = compressible(64, 256, 32, noise=0.05), nn.Linear(32, 5)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.head(self.mlp(x).tanh() * mask.exp())  # type: ignore[no-any-return]


def test_samples_that_are_not_finite_take_the_original_in_a_cascade() -> None:
    model = Scored().eval().requires_grad_(False)

    def samples(count: int) -> dict[str, Tensor]:
        return {"x": torch.randn(count, 64), "mask": torch.where(torch.rand(count, 32) < 0.3, -30.0, 0.0)}

    made = dendrofx.transform(
        model,
        calibration=[samples(64) for _ in range(24)],
        budget=dendrofx.Budget("flip", 0.1),
        scope="model",
        light=LowRank(8),
        options=dendrofx.Options(decide=False, tune_seconds=0),
    )
    (name,) = dendrofx.tolerances(made)
    dendrofx.set_tolerances(made, {name: torch.inf})
    given = samples(8)
    for i, value in enumerate([torch.nan, torch.inf, -torch.inf]):
        given["x"][i, 3] = value
    got, counts = made.forward_counted(**given)
    assert (counts["model"]["rows"], counts["model"]["hard_rows"]) == (8, 3)
    torch.testing.assert_close(got[:3], model(**given)[:3], equal_nan=True)
    torch.testing.assert_close(dendrofx.script(made)(**given), got, equal_nan=True)


def test_inputs_that_are_infinite_in_calibration_say_nothing_of_a_sample() -> None:
    x, mask = torch.randn(3, 4), torch.tensor([[0.0, -torch.inf]])
    batches = [
        Inputs((), (("x", x), ("mask", mask * 0 if i else mask), ("ids", torch.ones(3, 1).long()))) for i in (0, 1)
    ]
    assert finite_inputs(["x", "mask", "ids", "other"], batches) == ("x",)
