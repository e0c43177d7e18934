"""The energy gate, the learned gate and the controls: what each computes."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dendrofx.gates import AlwaysFull, AlwaysLight, EnergyGate, GateForm, LearnedGate, OracleGate, RandomGate, SiteRows
from dendrofx.graph.block import BlockData
from dendrofx.light import Int8, LightForm, LowRank
from dendrofx.runtime.scores import UNJUDGED, LightRows
from dendrofx.search.choose import relative_error, scores
from tests.gates.sites import WIDTH, known_gate, known_site, score, site

READS_LIGHT = LearnedGate(directions=3, reads="light")


def rows_and_log_errors() -> tuple[Tensor, Tensor]:
    at = known_site()
    assert at.data.rows is not None
    assert at.error is not None
    return at.data.rows, at.error.double().log()


# -------------------------------------------------------------------------------------------------- energy and learned


def test_energy_gate_is_the_least_squares_line() -> None:
    (rows, errors), x = rows_and_log_errors(), torch.randn(20, WIDTH)
    z = rows.abs().mean(1).log().double()
    line = torch.linalg.lstsq(torch.stack([z, torch.ones_like(z)], 1), errors[:, None]).solution[:, 0]
    expected = (x.abs().mean(1).log().double() * line[0] + line[1]).exp()
    torch.testing.assert_close(known_gate(EnergyGate())(x).double(), expected, rtol=1e-4, atol=0.0)


def test_learned_gate_is_the_ridge_solution() -> None:
    gate, (rows, y) = known_gate(LearnedGate(directions=4, ridge=0.1)), rows_and_log_errors()
    z = gate.features(rows).double()
    z = (z - z.mean(0)) / z.std(0, correction=0)
    weight = torch.linalg.solve(z.t() @ z + 0.1 * 300 * torch.eye(6).double(), z.t() @ (y - y.mean()))
    torch.testing.assert_close(gate(rows).double().log(), z @ weight + y.mean(), rtol=1e-3, atol=1e-3)


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


@pytest.mark.parametrize("form", [LearnedGate(), LearnedGate(directions=WIDTH), READS_LIGHT], ids=str)
def test_few_new_rows_of_the_same_kind_leave_the_range(form: GateForm) -> None:
    """One number decides, so about 1 / (n + 1) of them do, whatever the number of features; a box would lose k / n."""
    outside = 0
    for _ in range(20):
        at = site(torch.randn(1000, WIDTH))
        outside += int((scores(form, form.fit(at), at.light, torch.randn(1000, WIDTH)) >= UNJUDGED).sum())
    assert 3 <= outside <= 60  # of 20000, 20 expected


NARROW: dict[str, Callable[[], Tensor]] = {
    "equal": lambda: torch.full((50, WIDTH), 0.3),
    "layer norm": lambda: F.layer_norm(torch.randn(400, WIDTH), (WIDTH,)),
    "unit norm": lambda: F.normalize(torch.randn(400, WIDTH)),
    "norm 100": lambda: 100 * F.normalize(torch.randn(400, WIDTH)),
    "a constant feature": lambda: torch.cat([torch.full((400, 1), 100.0), 0.01 * torch.randn(400, WIDTH - 1)], 1),
}


@pytest.mark.parametrize("kind", NARROW)
@pytest.mark.parametrize("form", [EnergyGate(), LearnedGate()], ids=str)
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


def test_a_learned_gate_that_reads_the_light_output_sees_nothing_else() -> None:
    at, rows, gate = known_site(), torch.randn(20, WIDTH), known_gate(READS_LIGHT)
    light = LightRows(at.light(rows), torch.empty(0))
    assert torch.equal(gate(rows, light), gate(torch.zeros_like(rows), light))
    assert gate(torch.full_like(rows, math.nan), light).isnan().all()  # but for rows that are not finite
    outputs = BlockData(nn.Sequential(nn.Linear(12, 1)), at.light(at.data.rows))  # as if they were the rows of a site
    for name, value in LearnedGate(directions=3).fit(SiteRows(outputs, at.light, at.error)).named_buffers():
        assert torch.equal(gate.get_buffer(name), value)


@pytest.mark.parametrize("light", [Int8(weight_bits=7), LowRank(3, precision=Int8(weight_bits=7))], ids=str)
def test_a_learned_gate_that_reads_scales(light: LightForm) -> None:
    form, gate, rows = (
        LearnedGate(reads="scales"),
        known_gate(LearnedGate(reads="scales"), light),
        known_site(light).data.rows,
    )
    assert rows is not None
    rows = torch.cat([rows, torch.full((1, WIDTH), 1e9)])
    given = score(form, rows, light)
    assert (given < UNJUDGED).tolist() == [True] * 300 + [False]
    assert torch.equal(score(form, rows[:40], light), given[:40])
    assert bool(~(gate(rows[:1], LightRows(rows[:1], torch.full((1, gate.macs), math.nan))) < torch.inf))


# -------------------------------------------------------------------------------------------------------------- controls

ROW_KINDS: dict[str, Callable[[], Tensor]] = {
    "normal": lambda: torch.randn(20000, WIDTH),
    "wide": lambda: torch.randn(20000, 300),
    "small integers": lambda: torch.randint(0, 17, (20000, 64)).float(),
    "binary": lambda: (torch.rand(20000, 64) < 0.5).float(),
}


@pytest.mark.parametrize("kind", ROW_KINDS)
def test_random_gate_takes_its_share_of_the_rows(kind: str) -> None:
    rows = ROW_KINDS[kind]()
    for rate in (0.0, 0.05, 0.3, 0.9, 1.0):
        for seed in (0, 1, 2):
            hard = ~(known_gate(RandomGate(rate, seed))(rows) < 1e-3)
            assert abs(int(hard.sum()) - 20000 * rate) < 5 * math.sqrt(20000 * max(rate * (1 - rate), 1e-12))


def test_random_gate_reads_the_row_alone_and_its_seed() -> None:
    rows = torch.randn(1000, WIDTH)
    gate, other = known_gate(RandomGate(0.5)), known_gate(RandomGate(0.5, seed=1))
    hard, order = gate(rows), torch.randperm(1000)
    assert torch.equal(gate(rows[order]), hard[order])
    assert torch.equal(torch.cat([gate(part) for part in rows.split(7)]), hard)
    assert torch.equal(RandomGate(0.5).fit(site())(rows), hard)
    same = float((other(rows) == hard).double().mean())
    assert 0.42 < same < 0.58  # two independent halves agree on half the rows


def test_always_full_always_light_and_the_oracle() -> None:
    at, x = known_site(), torch.randn(50, WIDTH)
    assert score(AlwaysFull(), x).tolist() == [math.inf] * 50
    assert score(AlwaysLight(), x).tolist() == [0.0] * 50
    torch.testing.assert_close(score(OracleGate(), x), relative_error(BlockData(at.data.block, x), at.light))
