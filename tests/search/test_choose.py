"""Choosing: what a candidate costs within a budget, and which light branch and gate a site is given."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import dendrofx
from dendrofx import (
    BFloat16,
    Capability,
    EnergyGate,
    InputError,
    Int8,
    LearnedGate,
    LowRank,
    NoiseGate,
    Pruned,
    ResidualGate,
)
from dendrofx.gates.form import LightRuns
from dendrofx.graph.block import BlockData, finite_rows
from dendrofx.rewriting.rewrite import Branches
from dendrofx.runtime.scores import UNJUDGED
from dendrofx.search.calibrate import ONE_SIDED_95
from dendrofx.search.choose import Candidate, SiteData, candidates
from dendrofx.search.search_space import default_gates, default_lights
from tests.asked import asked
from tests.models import compressible

UNUSED = Branches(LowRank(1), nn.Identity(), EnergyGate(), nn.Identity())


def candidate(score: list[float], error: list[float]) -> Candidate:
    return Candidate(UNUSED, torch.tensor(score), torch.tensor(error), None, 100)


def site_data(block: nn.Sequential, rows: Tensor) -> SiteData:
    fit, gate, choose = rows.split(len(rows) // 3)
    return SiteData(*(BlockData(block, r) for r in (fit, gate, choose)))


def block() -> nn.Sequential:
    return nn.Sequential(nn.Linear(24, 48), nn.ReLU(), nn.Linear(48, 16)).eval()


# ---------------------------------------------------------------------------------------------------- activity_at


def test_no_row_is_hard_where_all_of_them_keep_the_budget() -> None:
    """Mean 0.075, variance 0.3^2 / 4 - 0.075^2 = 0.016875: the limit is 0.075 + 1.645 * 0.06495 = 0.1818."""
    given_ = candidate([1.0, 0.5, 0.4, 0.3], [0.3, 0.0, 0.0, 0.0])
    assert given_.activity_at(0.182) == 0.0
    assert given_.activity_at(0.1815) == 0.25


def test_the_highest_scores_are_hard_first_whatever_their_error() -> None:
    assert candidate([1.0, 0.9, 0.5, 0.4], [0.0, 0.0, 0.3, 0.0]).activity_at(0.1) == 0.75


def test_rows_of_one_score_take_one_branch() -> None:
    assert candidate([0.5, 0.5, 0.5, 0.5], [0.3, 0.0, 0.0, 0.0]).activity_at(0.1) == 1.0
    assert candidate([0.9, 0.9, 0.5, 0.5], [0.3, 0.0, 0.0, 0.0]).activity_at(0.1) == 0.5


def test_a_budget_that_no_error_keeps_makes_all_rows_hard() -> None:
    assert candidate([0.4, 0.3], [0.2, 0.2]).activity_at(1e-9) == 1.0


@pytest.mark.parametrize("score", [UNJUDGED, 2 * UNJUDGED, math.inf])
def test_unjudged_rows_are_hard_even_without_error(score: float) -> None:
    assert candidate([score, 0.1, 0.1, 0.1], [0.0, 0.0, 0.0, 0.0]).activity_at(1.0) == 0.25


def brute_force(score: Tensor, error: Tensor, budget: float) -> float:
    """Try every tolerance: just above each score, and 0."""
    n, best = len(score), 1.0
    for cut in [0.0, *(float(s) * 1.0001 for s in score)]:
        easy = score < cut
        left = torch.where(easy, error.double(), 0.0)
        limit = left.mean() + ONE_SIDED_95 * left.std(correction=0) / math.sqrt(n)
        if float(limit) <= budget:
            best = min(best, float((~easy).double().mean()))
    return best


@settings(derandomize=True, deadline=None, max_examples=80)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 10)), min_size=1, max_size=20), st.integers(1, 99))
def test_activity_is_the_least_that_a_tolerance_can_reach(rows: list[tuple[int, int]], budget: int) -> None:
    score = [s / 10 for s, _ in rows]
    error = [e / 10 for _, e in rows]
    found = candidate(score, error).activity_at(budget / 100 + 1e-7)
    assert found == pytest.approx(brute_force(torch.tensor(score), torch.tensor(error), budget / 100 + 1e-7), abs=1e-9)


# ------------------------------------------------------------------------------------------------------ the gates


def test_every_gate_that_fits_is_a_candidate_with_its_own_skill() -> None:
    rows = torch.randn(300, 24) * torch.logspace(-2, 1, 300)[torch.randperm(300)][:, None]
    data = site_data(block(), rows)
    found, reasons = candidates(data, [LowRank(6, "input"), Int8(weight_bits=7)], None, None, 0)
    by_light = {
        str(form): [str(c.branches.gate_form) for c in found if c.branches.light_form == form]
        for form in (LowRank(6, "input"), Int8(weight_bits=7))
    }
    learned = ["LearnedGate(directions=8)", "LearnedGate(directions=8, reads='light')"]
    assert by_light == {
        "LowRank(rank=6, basis='input')": ["ResidualGate()", "EnergyGate()", *learned],
        "Int8(weight_bits=7)": ["NoiseGate()", "EnergyGate()", *learned, "LearnedGate(directions=8, reads='scales')"],
    }
    assert reasons == []
    assert len({c.skill for c in found}) == len(found)
    for c in found:
        alone = candidates(data, [c.branches.light_form], c.branches.gate_form, None, 0)[0][0]
        assert torch.equal(c.score, alone.score)
        assert c.skill == alone.skill


def test_the_full_form_is_fitted_once_and_held_by_every_candidate() -> None:
    data = site_data(block(), torch.randn(90, 24))
    found, _ = candidates(data, [LowRank(3), LowRank(4)], None, Pruned(0.5), 0)
    assert {c.branches.full_form for c in found} == {Pruned(0.5)}
    assert len({id(c.branches.full) for c in found}) == 1
    with pytest.raises(InputError, match="rank must be"):
        candidates(data, [LowRank(3)], None, LowRank(0), 0)


@pytest.mark.parametrize("gate", [ResidualGate(), EnergyGate(), LearnedGate(directions=3)])
def test_a_named_gate_is_taken(gate: dendrofx.GateForm) -> None:
    found, _ = candidates(site_data(block(), torch.randn(90, 24)), [LowRank(4), LowRank(6, "input")], gate, None, 0)
    assert [c.branches.gate_form for c in found] == [gate, gate]


def test_a_named_gate_that_does_not_fit_the_light_form_is_a_reason() -> None:
    found, reasons = candidates(site_data(block(), torch.randn(90, 24)), [Pruned(0.5)], ResidualGate(), None, 0)
    assert found == []
    assert reasons == [
        "ResidualGate() bounds LowRank branches with basis 'weight' or 'input', whose code is an orthogonal projection of"
        " the row; take LearnedGate() for this light form"
    ]


# ----------------------------------------------------------------------------------------------------- the lights


def test_only_the_named_light_forms_are_tried() -> None:
    found, _ = candidates(site_data(block(), torch.randn(90, 24)), [LowRank(3), Pruned(0.5)], None, None, 0)
    assert list(dict.fromkeys(c.branches.light_form for c in found)) == [LowRank(3), Pruned(0.5)]


def test_a_light_form_that_saves_nothing_is_a_reason() -> None:
    found, reasons = candidates(site_data(block(), torch.randn(90, 24)), [LowRank(100)], None, None, 0)
    assert found == []
    assert reasons == ["LowRank(rank=100, basis='weight') saves no multiply-adds: 1920 of the block's 1920"]


def test_transform_refuses_a_site_whose_only_light_form_saves_nothing() -> None:
    model = compressible()
    routed = dendrofx.transform(
        model, calibration=[torch.randn(90, 64)], light=LowRank(400), options=dendrofx.Options(decide=False)
    )
    (site,) = routed.plan.sites
    assert (site.status, site.reason) == (
        "refused",
        "LowRank(rank=400, basis='weight') saves no multiply-adds: 18432 of the block's 18432 (%_2)",
    )


def test_a_lone_linear_has_no_units_to_leave_out() -> None:
    data = site_data(nn.Sequential(nn.Linear(24, 24)), torch.randn(90, 24))
    assert candidates(data, [Pruned(0.5)], None, None, 0) == (
        [],
        ["Pruned(energy=0.5) leaves out hidden units; a lone Linear has none"],
    )


# ------------------------------------------------------------------------------------------------------- no data


def test_without_data_only_the_bound_judges_and_no_skill_is_claimed() -> None:
    found, reasons = candidates(SiteData.without_rows(block(), 24, 0), None, None, None, 0)
    assert reasons == []
    assert found
    assert {type(c.branches.gate_form) for c in found} == {ResidualGate}
    assert {c.branches.light_form.needs_rows for c in found} == {False}
    assert [c.skill for c in found] == [None] * len(found)


@pytest.mark.parametrize("vnni", [True, False])
@pytest.mark.parametrize("bf16", [True, False])
def test_the_ladder_is_of_this_machine(vnni: bool, bf16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Capability("x86_64", True, True, vnni, bf16, False, vnni)
    monkeypatch.setattr("dendrofx.search.search_space.capability", lambda: here)
    assert all(isinstance(f, LowRank) and f.basis == "weight" for f in default_lights(BlockData(block())))
    low = ({Int8} if vnni else set()) | ({BFloat16} if bf16 else set())
    best = type(Int8()) if vnni else BFloat16 if bf16 else type(None)
    with_rows = default_lights(BlockData(block(), torch.randn(9, 24)))
    assert {type(f) for f in with_rows} == {LowRank, Pruned} | low
    composed = {type(f.precision) for f in with_rows if isinstance(f, LowRank | Pruned)}
    assert composed == {type(None), best}
    lone = BlockData(nn.Sequential(nn.Linear(24, 24)), torch.randn(9, 24))
    assert {type(f) for f in default_lights(lone)} == {LowRank} | low


def test_of_many_sites_those_of_wide_output_try_no_gate_that_reads_it() -> None:
    wide = nn.Sequential(nn.Linear(24, 48), nn.ReLU(), nn.Linear(48, 25)).eval()
    reads_light = LearnedGate(reads="light")
    for made, many, tried in ((wide, True, False), (wide, False, True), (block(), True, True)):
        gates = default_gates(BlockData(made, torch.randn(9, 24)), many)
        assert (reads_light in gates) is tried
        assert len(gates) == 5 + tried
    assert default_gates(BlockData(wide), True) == [ResidualGate(), NoiseGate()]


class Counted(nn.Module):
    """A light branch that counts its runs."""

    def __init__(self) -> None:
        super().__init__()
        self.runs = 0

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        return x[:, :16]

    def observe(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self(x), x.norm(dim=1, keepdim=True)


def test_a_light_branch_runs_once_on_the_same_rows() -> None:
    light, rows, others = Counted(), torch.randn(7, 24), torch.randn(7, 24)
    runs = LightRuns.of(light)
    assert LightRuns.of(runs) is runs
    for _ in range(2):
        assert torch.equal(runs.read(rows, "light").out, rows[:, :16])
        assert torch.equal(runs.read(others, "light").out, others[:, :16])
        assert torch.equal(runs.read(rows, "evidence").evidence, rows.norm(dim=1, keepdim=True))
    assert light.runs == 3


@pytest.mark.parametrize(
    ("options", "form"),
    [
        (
            {"gate": LearnedGate()},
            "LearnedGate(directions=8) is fitted on calibration rows: pass calibration=",
        ),
        ({"light": Pruned()}, "Pruned(energy=0.999) is fitted on calibration rows: pass calibration="),
    ],
)
def test_a_named_form_that_needs_data_asks_for_it(options: dict[str, object], form: str) -> None:
    with pytest.raises(InputError) as error:
        dendrofx.transform(compressible(), **asked(**options))  # type: ignore[arg-type]
    assert str(error.value).startswith(f"site '0..2': {form}")


def test_rows_that_are_not_finite_do_not_choose() -> None:
    rows = torch.randn(9, 24)
    rows[2, 3], rows[5, 0] = math.nan, math.inf
    kept = finite_rows(block(), rows)
    assert kept.rows is not None
    assert torch.equal(kept.rows, rows[[0, 1, 3, 4, 6, 7, 8]])
