"""What every gate promises: scores of a row alone and among others, rows that cannot be judged, and what is refused."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from dendrofx.gates import (
    AlwaysFull,
    AlwaysLight,
    EnergyGate,
    GateForm,
    LearnedGate,
    MarginGate,
    NoiseGate,
    OracleGate,
    RandomGate,
    ResidualGate,
    SiteRows,
)
from dendrofx.graph.block import BlockData
from dendrofx.light import BFloat16, Int8, LightForm, LowRank, Prepacked, Pruned
from dendrofx.runtime.scores import UNJUDGED, LightRows
from tests.gates.sites import RANK_3, WIDTH, known_gate, known_site, score, site
from tests.round_trips import Trip, assert_same, round_trips
from tests.rungs import refusal, rungs

NAN, INF = math.nan, math.inf
SEVEN = Int8(weight_bits=7)
FITTED = [EnergyGate(), LearnedGate(), LearnedGate(directions=3, ridge=1.0), LearnedGate(directions=99)]
ON_RANK_3 = [*FITTED, LearnedGate(directions=3, reads="light"), ResidualGate(), OracleGate()]
CONTROLS = [AlwaysFull(), AlwaysLight(), RandomGate(0.3)]
NOISY = [SEVEN, Int8(), Int8(smooth=0.5), BFloat16(), BFloat16(packed=True)]
# light form and gate; the controls do not look at a row's values
JUDGED = rungs(*[(RANK_3, gate) for gate in ON_RANK_3], *[(light, NoiseGate()) for light in NOISY])
JUDGED += rungs((SEVEN, LearnedGate(reads="scales")), (LowRank(3, precision=SEVEN), LearnedGate(reads="scales")))
EVERY = [*JUDGED, *rungs(*[(RANK_3, gate) for gate in CONTROLS])]
every = pytest.mark.parametrize(("light", "form"), EVERY)
judged = pytest.mark.parametrize(("light", "form"), JUDGED)
fitted = pytest.mark.parametrize("form", FITTED, ids=str)


# ----------------------------------------------------------------------------------------------------- a row's own score


@every
@given(
    n=st.integers(2, 70), at=st.integers(0, 69), scale=st.sampled_from([0.1, 1.0, 10.0, 1e5]), seed=st.integers(0, 9)
)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_a_row_scores_the_same_alone_and_among_others(
    light: LightForm, form: GateForm, n: int, at: int, scale: float, seed: int
) -> None:
    torch.manual_seed(seed)
    rows, i = torch.randn(n, WIDTH) * scale, at % n
    others = rows.flip(0) * 1e3
    others[i] = rows[i]
    alone = score(form, rows[i : i + 1], light, seed)[0]
    for batch in (rows, others):
        among = score(form, batch, light, seed)[i]
        if 1.0 < among < UNJUDGED and isinstance(form, ResidualGate):
            continue  # beyond every tolerance in use, where the bound is about to be none
        assert bool((among == alone) | ((among - alone).abs() <= known_gate(form, light, seed).margin * among))


@round_trips
@every
def test_gates_give_the_same_scores_however_they_were_saved(light: LightForm, form: GateForm, trip: Trip) -> None:
    gate: Any = known_gate(form, light)
    rows = torch.cat([torch.randn(40, WIDTH), torch.zeros(1, WIDTH), torch.full((2, WIDTH), 1e30)])
    rows = torch.cat([rows, torch.full((1, WIDTH), NAN), torch.full((1, WIDTH), INF)])
    batches = (rows, F.layer_norm(rows, (WIDTH,)), rows[:1], rows[:0])
    calls = [(x,) if form.reads == "input" else (x, handed_on(light, form, x)) for x in batches]
    assert_same(trip(gate), gate, *calls, rtol=1e-6)


def handed_on(light: LightForm, form: GateForm, x: torch.Tensor) -> LightRows:
    branch: Any = known_site(light).light
    return LightRows(*(branch.scales(x) if form.reads == "scales" else branch.observe(x)))


@every
def test_no_rows_and_no_more_memory_than_its_own(light: LightForm, form: GateForm) -> None:
    assert score(form, torch.empty(0, WIDTH), light).shape == (0,)
    for name, tensor in known_gate(form, light).named_buffers():
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size(), name


@judged
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_rows_that_are_not_finite_are_hard_at_every_tolerance(light: LightForm, form: GateForm, bad: float) -> None:
    x = torch.randn(9, WIDTH)
    x[2, 3], x[5], x[7, 0], x[7, 1] = bad, bad, bad, -bad
    hard = ~(score(form, x, light) < INF)
    assert hard.tolist() == [i in (2, 5, 7) for i in range(9)]


@fitted
def test_fitting_twice_gives_the_same_bits(form: GateForm) -> None:
    torch.manual_seed(2)
    first, second = known_gate(form), form.fit(known_site())
    assert list(first.state_dict()) == list(second.state_dict())
    for a, b in zip(first.buffers(), second.buffers(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(first(torch.ones(2, WIDTH)), second(torch.ones(2, WIDTH)))


# ------------------------------------------------------------------------------------------------- the range of features


@fitted
@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 1e3, 1e6])
def test_every_calibration_row_is_judged(form: GateForm, scale: float) -> None:
    rows = torch.randn(100, WIDTH) * scale
    assert bool((form.fit(site(rows))(rows) < UNJUDGED).all())


@fitted
def test_rows_outside_the_calibrated_range_are_not_judged(form: GateForm) -> None:
    rows, gate = known_site().data.rows, known_gate(form)
    assert rows is not None
    edge = rows[[0, -1]] * torch.tensor([[1e-3], [1e3]])
    outside = torch.cat([edge[1:] if isinstance(form, LearnedGate) else edge, torch.full((1, WIDTH), 1e4)])
    assert bool((gate(outside) >= UNJUDGED).all())
    assert bool((gate(rows) < UNJUDGED).all())


@fitted
def test_seen_rows_widen_the_range_only(form: GateForm) -> None:
    at, x = known_site(), torch.randn(40, WIDTH) * 20
    seen = torch.cat([torch.randn(50, WIDTH) * 100, torch.full((1, WIDTH), 1e-3)])
    narrow, wide = known_gate(form)(x), form.fit(SiteRows(at.data, at.light, at.error, seen))(x)
    known = narrow < UNJUDGED
    assert int((wide < UNJUDGED).sum()) > int(known.sum())
    torch.testing.assert_close(wide[known], narrow[known], rtol=1e-3, atol=0.0)


@fitted
def test_zero_rows(form: GateForm) -> None:
    zero, rows = torch.zeros(2, WIDTH), known_site().data.rows
    sphere = site(5 * F.normalize(torch.randn(300, WIDTH)))  # no row is nearly as small as zero
    assert bool((form.fit(sphere)(zero) >= UNJUDGED).all())
    if isinstance(form, EnergyGate):  # a single feature, whose logarithm is far out
        assert bool((known_gate(form)(zero) >= UNJUDGED).all())
    assert rows is not None
    assert not bool(form.fit(site(torch.cat([rows, zero])))(zero).isnan().any())
    none = form.fit(site(torch.zeros(5, WIDTH), bias=False))
    assert bool(~(none(torch.randn(4, WIDTH)) < UNJUDGED).any())


# ----------------------------------------------------------------------------------------------------- what is refused

OPTIONS: list[tuple[Any, dict[str, Any], str]] = [
    (LearnedGate, {"directions": 0}, "directions must be >= 1, got 0"),
    (LearnedGate, {"ridge": 0.0}, "ridge must be > 0, got 0.0"),
    (LearnedGate, {"reads": "evidence"}, "reads must be 'input', 'light' or 'scales', got 'evidence'"),
    *((RandomGate, {"rate": r}, f"rate must be in [0, 1], got {r}") for r in (1.5, -0.1)),
]
OTHERS = {  # light forms that a gate has nothing to read of
    ResidualGate(): [LowRank(2, "whitened"), Pruned(0.9)],
    NoiseGate(): [RANK_3, LowRank(4, "whitened"), Pruned(0.9), Prepacked(), LowRank(4, precision=SEVEN)],
    LearnedGate(reads="scales"): [RANK_3],
}
OTHERS[NoiseGate()] += [Pruned(0.9, precision=SEVEN), Pruned(0.9, precision=BFloat16())]
SAYS = {
    ResidualGate(): "bounds LowRank branches with basis 'weight' or 'input', whose code is an orthogonal projection of the row",
    NoiseGate(): "estimates the rounding noise of Int8 and BFloat16 branches",
    LearnedGate(reads="scales"): "reads the scales of int8 light branches",
}


@pytest.mark.parametrize(("form", "options", "message"), OPTIONS)
def test_a_form_that_cannot_be(form: Any, options: dict[str, Any], message: str) -> None:
    assert refusal(form, **options) == message


@pytest.mark.parametrize(("light", "form"), rungs(*[(light, gate) for gate in OTHERS for light in OTHERS[gate]]))
def test_light_forms_that_a_gate_cannot_read(light: LightForm, form: GateForm) -> None:
    assert refusal(form.fit, site(light=light)) == f"{form} {SAYS[form]}; take LearnedGate() for this light form"


@fitted
def test_missing_rows(form: GateForm) -> None:
    at = known_site()
    for less in (SiteRows(at.data, at.light), SiteRows(BlockData(at.data.block), at.light, at.error)):
        assert refusal(form.fit, less) == f"{form} is fitted on calibration rows: pass calibration= to transform"


def test_gates_of_whole_models_are_none_of_blocks() -> None:
    assert (
        refusal(MarginGate().fit, known_site()) == "MarginGate() is a gate of whole models: use it with scope='model'"
    )
