"""Gates: scores of a row alone and among others, rows that cannot be judged, and the controls."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dendrofx.errors import InputError
from dendrofx.gates import (
    AlwaysFull,
    AlwaysLight,
    EnergyGate,
    GateForm,
    LearnedGate,
    OracleGate,
    RandomGate,
    ResidualGate,
    SiteRows,
)
from dendrofx.graph.block import BlockData
from dendrofx.light import Int8, LowRank
from dendrofx.runtime.scores import UNJUDGED, LightRows
from dendrofx.search.choose import relative_error
from dendrofx.search.choose import scores as scores_of

WIDTH = 16
FITTED: list[GateForm] = [EnergyGate(), LearnedGate(), LearnedGate(directions=3, ridge=1.0), LearnedGate(directions=99)]
READS_LIGHT = LearnedGate(directions=3, reads="light")
EVERY: list[GateForm] = [
    *FITTED,
    READS_LIGHT,
    ResidualGate(),
    AlwaysFull(),
    AlwaysLight(),
    RandomGate(0.3),
    OracleGate(),
]


def site(rows: Tensor | None = None, bias: bool = True) -> SiteRows:
    """A block of which half the directions matter, its rank-6 branch, and rows that differ in size."""
    block = nn.Sequential(nn.Linear(WIDTH, 32, bias), nn.ReLU(), nn.Linear(32, 12, bias)).eval().requires_grad_(False)
    rows = torch.randn(300, WIDTH) * torch.logspace(-1, 1, 300)[:, None] if rows is None else rows
    data = BlockData(block, rows)
    light = LowRank(3).fit_data(data)
    return SiteRows(data, light, relative_error(data, light))


def score(form: GateForm, at: SiteRows, gate: nn.Module, rows: Tensor) -> Tensor:
    return scores_of(form, gate, at.light, rows)


@pytest.mark.parametrize("form", [*EVERY, LowRank(3, basis="whitened"), LowRank(2)], ids=str)
def test_what_is_fitted_keeps_no_more_memory_than_its_own(form: GateForm | LowRank) -> None:
    at = site()
    fitted = form.fit(at) if isinstance(form, GateForm) else form.fit_data(at.data)
    for name, tensor in fitted.named_buffers():
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size(), name


@pytest.mark.parametrize("form", FITTED, ids=str)
def test_fitting_twice_gives_the_same_bits(form: GateForm) -> None:
    at = site()
    torch.manual_seed(1)
    first = form.fit(at)
    torch.manual_seed(2)
    second = form.fit(at)
    assert list(first.state_dict()) == list(second.state_dict())
    for a, b in zip(first.buffers(), second.buffers(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(first(torch.ones(2, WIDTH)), second(torch.ones(2, WIDTH)))


@pytest.mark.parametrize("form", [f for f in EVERY if not isinstance(f, OracleGate)], ids=str)
@given(
    n=st.integers(2, 70),
    at_row=st.integers(0, 69),
    scale=st.sampled_from([0.1, 1.0, 10.0]),
    seed=st.integers(0, 9),
)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_a_row_scores_the_same_alone_and_among_others(
    form: GateForm, n: int, at_row: int, scale: float, seed: int
) -> None:
    torch.manual_seed(seed)
    at = site()
    gate, rows, i = form.fit(at), torch.randn(n, WIDTH) * scale, at_row % n
    others = rows.flip(0) * 1e3
    others[i] = rows[i]
    alone = score(form, at, gate, rows[i : i + 1])[0]
    for batch in (rows, others):
        among = score(form, at, gate, batch)[i]
        if 1.0 < among < UNJUDGED and isinstance(form, ResidualGate):
            continue  # beyond every tolerance in use, where the bound is about to be none
        assert bool((among == alone) | ((among - alone).abs() <= gate.margin * among))


@pytest.mark.parametrize("form", FITTED, ids=str)
def test_rows_outside_the_calibrated_range_are_not_judged(form: GateForm) -> None:
    at = site()
    gate = form.fit(at)
    assert at.data.rows is not None
    edge = at.data.rows[[0, -1]] * torch.tensor([[1e-3], [1e3]])
    outside = torch.cat([edge[1:] if isinstance(form, LearnedGate) else edge, torch.full((1, WIDTH), 1e4)])
    assert bool((gate(outside) >= UNJUDGED).all())
    assert bool((gate(at.data.rows) < UNJUDGED).all())


def test_seen_rows_widen_the_range_only() -> None:
    at = site()
    wider = SiteRows(
        at.data, at.light, at.error, torch.cat([torch.randn(50, WIDTH) * 100, torch.full((1, WIDTH), 1e-3)])
    )
    x = torch.randn(40, WIDTH) * 20
    for form in FITTED:
        narrow, wide = form.fit(at)(x), form.fit(wider)(x)
        assert int((wide < UNJUDGED).sum()) > int((narrow < UNJUDGED).sum())
        judged = narrow < UNJUDGED
        torch.testing.assert_close(wide[judged], narrow[judged], rtol=1e-3, atol=0.0)


@pytest.mark.parametrize("form", [LearnedGate(), LearnedGate(directions=WIDTH), READS_LIGHT], ids=str)
def test_few_new_rows_of_the_same_kind_leave_the_range(form: GateForm) -> None:
    """One number decides, so about 1 / (n + 1) of them do, whatever the number of features; a box would lose k / n."""
    outside = 0
    for _ in range(20):
        at = site(torch.randn(1000, WIDTH))
        outside += int((score(form, at, form.fit(at), torch.randn(1000, WIDTH)) >= UNJUDGED).sum())
    assert 3 <= outside <= 60  # of 20000, 20 expected


def test_a_learned_gate_that_reads_the_light_output_sees_nothing_else() -> None:
    at, rows = site(), torch.randn(20, WIDTH)
    gate = READS_LIGHT.fit(at)
    light = LightRows(at.light(rows), torch.empty(0))
    assert torch.equal(gate(rows, light), gate(torch.zeros_like(rows), light))
    assert gate(torch.full_like(rows, math.nan), light).isnan().all()  # but for rows that are not finite
    assert at.data.rows is not None
    outputs = BlockData(nn.Sequential(nn.Linear(12, 1)), at.light(at.data.rows))  # as if they were the rows of a site
    for name, value in LearnedGate(directions=3).fit(SiteRows(outputs, at.light, at.error)).named_buffers():
        assert torch.equal(gate.get_buffer(name), value)


def test_a_learned_gate_that_reads_scales_takes_int8_branches_alone() -> None:
    at, form = site(), LearnedGate(reads="scales")
    with pytest.raises(InputError) as error:
        form.fit(at)
    wanted = "reads the scales of int8 light branches; take LearnedGate() for this light form"
    assert str(error.value) == f"{form} {wanted}"
    for light in (Int8(weight_bits=7).fit_data(at.data), LowRank(3, precision=Int8(weight_bits=7)).fit_data(at.data)):
        gate = form.fit(SiteRows(at.data, light, relative_error(at.data, light)))
        rows = torch.cat([at.data.rows, torch.full((1, WIDTH), 1e9)])  # type: ignore[list-item]
        score = gate(rows, LightRows(*light.scales(rows)))  # type: ignore[operator]
        assert (score < UNJUDGED).tolist() == [True] * 300 + [False]
        together = gate(rows[:40], LightRows(*light.scales(rows[:40])))  # type: ignore[operator]
        assert torch.equal(together, score[:40])
        assert bool(~(gate(rows[:1], LightRows(rows[:1], torch.full((1, gate.macs), math.nan))) < torch.inf))


NARROW: dict[str, Callable[[], Tensor]] = {
    "equal": lambda: torch.full((50, WIDTH), 0.3),
    "layer norm": lambda: F.layer_norm(torch.randn(400, WIDTH), (WIDTH,)),
    "unit norm": lambda: F.normalize(torch.randn(400, WIDTH)),
    "norm 100": lambda: 100 * F.normalize(torch.randn(400, WIDTH)),
    "a constant feature": lambda: torch.cat([torch.full((400, 1), 100.0), 0.01 * torch.randn(400, WIDTH - 1)], 1),
}


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 1e3, 1e6])
@pytest.mark.parametrize("form", FITTED, ids=str)
def test_every_calibration_row_is_judged(form: GateForm, scale: float) -> None:
    rows = torch.randn(100, WIDTH) * scale
    assert bool((form.fit(site(rows))(rows) < UNJUDGED).all())


@pytest.mark.parametrize("kind", NARROW)
@pytest.mark.parametrize("form", FITTED[:2], ids=str)
def test_rows_are_judged_where_a_feature_hardly_varies(form: GateForm, kind: str) -> None:
    judged = []
    for _ in range(10):
        rows = NARROW[kind]()
        judged.append(form.fit(site(rows))(rows) < UNJUDGED)
    assert float(torch.cat(judged).double().mean()) > 0.99  # all but a rounded edge


@pytest.mark.parametrize("kind", NARROW)
def test_a_learned_score_keeps_its_margin_where_a_feature_hardly_varies(kind: str) -> None:
    rows = NARROW[kind]()
    gate = LearnedGate(directions=WIDTH).fit(site(rows))  # the code's norm is as constant as the row's
    together, alone = gate(rows), torch.cat([gate(r) for r in rows.split(1)])
    judged = (together < UNJUDGED) & (alone < UNJUDGED)
    assert bool(((alone - together).abs()[judged] <= gate.margin * together[judged]).all())


@pytest.mark.parametrize("form", [*FITTED, ResidualGate(), OracleGate()], ids=str)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_rows_that_are_not_finite_are_hard_at_every_tolerance(form: GateForm, bad: float) -> None:
    at = site()
    gate = form.fit(at)
    x = torch.randn(9, WIDTH)
    x[2, 3], x[5], x[7, 0], x[7, 1] = bad, bad, bad, -bad
    hard = ~(score(form, at, gate, x) < torch.inf)
    assert hard.tolist() == [i in (2, 5, 7) for i in range(9)]


@pytest.mark.parametrize("form", FITTED, ids=str)
def test_zero_rows(form: GateForm) -> None:
    at, zero = site(), torch.zeros(2, WIDTH)
    sphere = site(5 * F.normalize(torch.randn(300, WIDTH)))  # no row is nearly as small as zero
    assert bool((form.fit(sphere)(zero) >= UNJUDGED).all())
    if isinstance(form, EnergyGate):  # a single feature, whose logarithm is far out
        assert bool((form.fit(at)(zero) >= UNJUDGED).all())
    assert at.data.rows is not None
    some = site(torch.cat([at.data.rows, zero]))
    assert not bool(form.fit(some)(zero).isnan().any())
    none = form.fit(site(torch.zeros(5, WIDTH), bias=False))
    assert bool(~(none(torch.randn(4, WIDTH)) < UNJUDGED).any())


@pytest.mark.parametrize("form", EVERY, ids=str)
def test_no_rows(form: GateForm) -> None:
    at = site()
    assert score(form, at, form.fit(at), torch.empty(0, WIDTH)).shape == (0,)


@pytest.mark.parametrize("form", FITTED, ids=str)
def test_missing_rows(form: GateForm) -> None:
    at = site()
    for less in (SiteRows(at.data, at.light), SiteRows(BlockData(at.data.block), at.light, at.error)):
        with pytest.raises(InputError) as error:
            form.fit(less)
        assert str(error.value) == f"{form} is fitted on calibration rows: pass calibration= to transform"


def test_energy_gate_is_the_least_squares_line() -> None:
    at = site()
    gate, x = EnergyGate().fit(at), torch.randn(20, WIDTH)
    assert at.data.rows is not None
    assert at.error is not None
    z = at.data.rows.abs().mean(1).log().double()
    line = torch.linalg.lstsq(torch.stack([z, torch.ones_like(z)], 1), at.error.double().log()[:, None]).solution[:, 0]
    expected = (x.abs().mean(1).log().double() * line[0] + line[1]).exp()
    torch.testing.assert_close(gate(x).double(), expected, rtol=1e-4, atol=0.0)


def test_learned_gate_is_the_ridge_solution() -> None:
    at = site()
    gate = LearnedGate(directions=4, ridge=0.1).fit(at)
    assert at.data.rows is not None
    assert at.error is not None
    z = gate.features(at.data.rows).double()  # type: ignore[operator]
    z = (z - z.mean(0)) / z.std(0, correction=0)
    y = at.error.double().log()
    weight = torch.linalg.solve(z.t() @ z + 0.1 * 300 * torch.eye(6).double(), z.t() @ (y - y.mean()))
    torch.testing.assert_close(gate(at.data.rows).double().log(), z @ weight + y.mean(), rtol=1e-3, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("form", [EnergyGate(), LearnedGate()], ids=str)
def test_a_fitted_gate_finds_the_rows_with_the_larger_error(form: GateForm) -> None:
    block, sizes = nn.Sequential(nn.Linear(WIDTH, 32)), torch.logspace(-2, 0, 500)[:, None]
    light = LowRank(3).fit(block)  # its bias is exact: small rows have a small relative error
    fit, fresh = (BlockData(block, torch.randn(500, WIDTH) * sizes) for _ in range(2))
    score = form.fit(SiteRows(fit, light, relative_error(fit, light)))(fresh.rows)
    judged = score < UNJUDGED
    both = torch.stack([score.log(), relative_error(fresh, light).log()])[:, judged]
    assert float(torch.corrcoef(both)[0, 1]) > 0.5


@pytest.mark.parametrize(("make", "message"), [
    (lambda: LearnedGate(directions=0), "directions must be >= 1, got 0"),
    (lambda: LearnedGate(ridge=0.0), "ridge must be > 0, got 0.0"),
    (lambda: LearnedGate(reads="evidence"), "reads must be 'input', 'light' or 'scales', got 'evidence'"),
    (lambda: RandomGate(1.5), "rate must be in [0, 1], got 1.5"),
    (lambda: RandomGate(-0.1), "rate must be in [0, 1], got -0.1"),
], ids=["directions", "ridge", "reads", "rate above 1", "rate below 0"])  # fmt: skip
def test_a_form_that_cannot_be(make: Callable[[], GateForm], message: str) -> None:
    with pytest.raises(InputError) as error:
        make()
    assert str(error.value) == message


ROW_KINDS: dict[str, Callable[[], Tensor]] = {
    "normal": lambda: torch.randn(20000, WIDTH),
    "wide": lambda: torch.randn(20000, 300),
    "small integers": lambda: torch.randint(0, 17, (20000, 64)).float(),
    "binary": lambda: (torch.rand(20000, 64) < 0.5).float(),
}


@pytest.mark.parametrize("kind", ROW_KINDS)
@pytest.mark.parametrize("rate", [0.0, 0.05, 0.3, 0.9, 1.0])
def test_random_gate_takes_its_share_of_the_rows(kind: str, rate: float) -> None:
    rows = ROW_KINDS[kind]()
    for seed in (0, 1, 2):
        hard = ~(RandomGate(rate, seed).fit(site())(rows) < 1e-3)
        deviations = abs(int(hard.sum()) - 20000 * rate) / math.sqrt(20000 * max(rate * (1 - rate), 1e-12))
        assert deviations < 5


def test_random_gate_reads_the_row_alone_and_its_seed() -> None:
    rows = torch.randn(1000, WIDTH)
    gate, other = RandomGate(0.5).fit(site()), RandomGate(0.5, seed=1).fit(site())
    hard, order = gate(rows), torch.randperm(1000)
    assert torch.equal(gate(rows[order]), hard[order])
    assert torch.equal(torch.cat([gate(part) for part in rows.split(7)]), hard)
    assert torch.equal(RandomGate(0.5).fit(site())(rows), hard)
    same = float((other(rows) == hard).double().mean())
    assert 0.42 < same < 0.58  # two independent halves agree on half the rows


def test_always_full_and_always_light() -> None:
    at, x = site(), torch.randn(5, WIDTH)
    assert AlwaysFull().fit(at)(x).tolist() == [math.inf] * 5
    assert AlwaysLight().fit(at)(x).tolist() == [0.0] * 5


def test_oracle_scores_the_true_error() -> None:
    at, x = site(), torch.randn(50, WIDTH)
    got = score(OracleGate(), at, OracleGate().fit(at), x)
    torch.testing.assert_close(got, relative_error(BlockData(at.data.block, x), at.light))


@pytest.mark.parametrize("form", EVERY, ids=str)
def test_a_scripted_gate_equals_the_eager_one(form: GateForm) -> None:
    at = site()
    gate = form.fit(at)
    scripted = torch.jit.script(gate)
    rows = torch.cat([torch.randn(40, WIDTH), torch.zeros(1, WIDTH), torch.full((2, WIDTH), 1e30)])
    rows = torch.cat([rows, torch.full((1, WIDTH), math.nan), torch.full((1, WIDTH), math.inf)])
    for x in (rows, F.layer_norm(rows, (WIDTH,)), rows[:1], rows[:0]):
        light = LightRows(*at.light.observe(x))  # type: ignore[operator]
        args = (x,) if form.reads == "input" else (x, light)
        for _ in range(3):  # TorchScript optimises on the second call
            torch.testing.assert_close(scripted(*args), gate(*args), rtol=1e-6, atol=0.0, equal_nan=True)
