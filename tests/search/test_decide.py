"""The decision, on recorded times: what is taken, and what is refused and why."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dendrofx
from dendrofx import LightForm, LowRank, Prepacked, Pruned, ResidualGate, Transposed
from dendrofx.runtime.branches import TransposedLinear
from dendrofx.runtime.packed import PackedLinear
from tests.models import Residual, compressible
from tests.races import RACES
from tests.recorded import (
    EIGHT,
    EVERY,
    FAST,
    LOW,
    ONE,
    SHAPES,
    SLOW,
    THREE,
    Medians,
    Recorded,
    decide,
    is_the_original,
    rows,
)

LOW8 = LowRank(8, precision=EIGHT)
LIGHTS: list[LightForm] = [LOW, LOW8, EIGHT]


def two_kinds(count: int = 400) -> Tensor:
    """Rows of a subspace of six dimensions, and a few that leave it."""
    base = 20 * torch.randn(count, 6) @ torch.linalg.qr(torch.randn(64, 6)).Q.t()
    return torch.where(torch.rand(count, 1) < 0.85, base, torch.randn(count, 64))


def plain() -> nn.Sequential:
    return nn.Sequential(nn.Linear(64, 256, bias=False), nn.ReLU(), nn.Linear(256, 8)).eval()


# --------------------------------------------------------------------------------------------------- what is taken


@pytest.mark.parametrize("fastest", LIGHTS, ids=str)
def test_the_fastest_candidate_within_the_budget_is_taken(fastest: LightForm) -> None:
    timer = Recorded(lambda shape, n: {"light": lambda form: 1.0 if form == fastest else 4.0})
    made = decide(compressible(), timer, rows(), lights=LIGHTS, gate=EVERY)
    site = made.site
    assert timer.sites == [("64 -> 256 -> 8", 64, [str(f) for f in LIGHTS], ["block", "Transposed()", "Prepacked()"])]
    assert made.raced == [(["0..2"], 64)]
    assert (site.status, site.light, site.gate, site.activity) == ("routed", fastest, EVERY, 0.0)
    assert (site.rows, site.block_ms, site.predicted_ms, site.measured_ms) == (64, 10.0, 1.5, 5.0)
    assert site.break_even == pytest.approx(1.0 if site.predicted_ms is None else site.break_even)
    assert "pays below an activity of" in site.reason


def test_a_faster_one_that_misses_the_budget_is_not_taken() -> None:
    blind = Pruned(0.3)
    timer = Recorded(lambda shape, n: {"light": lambda form: 0.01 if form == blind else 6.0})
    made = decide(compressible(), timer, rows(), lights=[blind, LOW], gate=EVERY)
    assert str(blind) in timer.sites[0][2]
    assert made.site.light == LOW


@pytest.mark.parametrize("skilful_ms", [0.6, 3.0], ids=["a tie", "far dearer"])
def test_ties_go_to_the_gate_with_more_skill(skilful_ms: float) -> None:
    """5.1 ms and 5.0 ms are as good as equal, 7.5 ms are not."""
    model = compressible()
    found = decide(model, None, rows(), lights=[LOW]).space.explored.found["0..2"]
    best = max(found, key=lambda c: -1.0 if c.skill is None else c.skill).branches.gate_form
    timer = Recorded(lambda shape, n: {"light": 4.5})
    plain_gate = {str(c.branches.gate_form): 0.5 for c in found} | {str(best): skilful_ms}
    original = timer.site

    def site(shape: str, x: Tensor, candidates: Any, fulls: Any) -> Any:
        times = original(shape, x, candidates, fulls)
        gates = {(light, gate): plain_gate[gate] for light, gate in times.gate}
        return type(times)(times.rows, times.block, times.full, times.light, gates, times.split, times.moved)

    timer.site = site  # type: ignore[method-assign,assignment]
    made = decide(model, timer, rows(), lights=[LOW])
    assert len({c.branches.gate_form for c in found}) >= 3
    assert (made.site.gate == best) is (skilful_ms < 1)


# ------------------------------------------------------------------------------------------------ what is refused


def test_a_site_whose_parts_cost_more_than_its_block_is_refused_with_the_figures() -> None:
    model = compressible()
    made = decide(model, timer := Recorded(lambda shape, n: {"light": 9.0, "gate": 1.25}), rows(), **ONE)
    assert made.site.reason == (
        "no light form pays: the cheapest, LowRank(rank=8, basis='weight') with AlwaysLight(), would take 10.2 ms where the"
        " block takes 10 (64 rows; it breaks even at 0.0 % activity) within the budget on calibration rows (%_2)"
    )
    assert timer.raced == []
    assert is_the_original(made.module, model)


def test_the_figures_of_a_refusal_are_those_that_do_not_pay() -> None:
    """At 1 row the gate costs more than the block: that size must be named, not the one at which routing pays."""
    timer = Recorded(lambda shape, n: {"block": 10.0 if n > 1 else 0.4})
    made = decide(compressible(), timer, rows(), **ONE, batch_sizes=(1, 64))
    assert made.plan.routed == []
    assert "would take 1.5 ms where the block takes 0.4 (1 row" in made.site.reason


@pytest.mark.parametrize(("medians", "why"), [
    ((10.0, 10.0, 9.8), "1.02 x the scripted original at batch 64 (10 ms), min_speedup is 1.05"),
    ((10.0, 10.0, 20.0), "0.50 x the scripted original at batch 64 (10 ms), min_speedup is 1.05"),
    ((11.5, 10.0, 9.0), "1.11 x the scripted original at batch 64 (10 ms), within the 15 % that the original differed from itself"),
])  # fmt: skip
def test_a_win_that_is_none_returns_the_original(medians: Medians, why: str) -> None:
    model = compressible()
    made = decide(model, Recorded(races=lambda sites, n: medians), rows(), **ONE)
    assert made.plan.routed == []
    assert made.site.reason == f"the rewritten model did not win: {why} (%_2)"
    assert is_the_original(made.module, model)
    (race,) = made.plan.models
    assert (race.scripted_ms, race.routed_ms) == (10.0, medians[2])
    assert f"whole model at batch 64: 10 ms scripted, {medians[2]:.3g} ms rewritten" in str(made.plan)


def test_min_speedup_is_what_the_caller_says() -> None:
    timer = Recorded(races=lambda sites, n: (10.0, 10.0, 9.8))
    assert decide(compressible(), timer, rows(), **ONE, min_speedup=1.01).plan.routed
    made = decide(compressible(), Recorded(), rows(), **ONE, min_speedup=3.0)
    assert made.site.reason.endswith("2.00 x the scripted original at batch 64 (10 ms), min_speedup is 3 (%_2)")


@pytest.mark.parametrize("losing", [1, 64, 256])
def test_it_must_win_at_each_batch_size(losing: int) -> None:
    timer = Recorded(races=lambda sites, n: SLOW if n == losing else FAST)
    made = decide(compressible(), timer, rows(), **ONE, batch_sizes=(1, 64, 256))
    assert [n for _, n in made.raced] == [1, 64, 256]
    assert made.plan.routed == []
    assert f"at batch {losing} " in made.site.reason


@pytest.mark.parametrize(("name", "routed"), [
    ("quiet", True), ("two busy processes", True), ("one busy process", False), ("two, a larger model", False),
])  # fmt: skip
def test_on_times_that_contradict_each_other_nothing_is_decided(name: str, routed: bool) -> None:
    model = compressible()
    made = decide(model, timer := Recorded(races=lambda sites, n: RACES[name]), rows(), **ONE)
    assert bool(made.plan.routed) is routed
    assert timer.raced == [(["0..2"], 64)]
    text = [line for line in str(made.plan).splitlines() if "whole model at batch 64" in line]
    assert all(len(line) <= 100 for line in text)
    if not routed:
        assert made.site.reason.startswith("the timings are UNRELIABLE at batch 64, so nothing is decided on them: ")
        assert "x by the medians, " in made.site.reason
        assert "did not win" not in made.site.reason
        assert ", UNRELIABLE: " in text[0]
        assert is_the_original(made.module, model)


def test_unreliable_times_refuse_all_sites_at_once() -> None:
    """A slow race drops the least site and is run again; one that says nothing picks none."""
    timer = Recorded(lambda shape, n: {"light": COSTS[shape]}, lambda sites, n: RACES["one busy process"])
    made = decide(Residual(64, 256).eval(), timer, rows(), **THREE)
    assert [sites for sites, _ in made.raced] == [["stem", "fc1..fc2", "head"]]
    assert made.plan.routed == []


# ----------------------------------------------------------------------------------------------- several sites

COSTS = dict(zip(SHAPES, (2.0, 8.0, 5.0), strict=True))  # of 10 ms each


def three(winning: list[str], **parts: Any) -> tuple[Any, Recorded]:
    timer = Recorded(
        lambda shape, n: {"light": COSTS[shape], **parts.get(shape, {})},
        lambda sites, n: FAST if sites == winning else SLOW,
    )
    return decide(Residual(64, 256).eval(), timer, rows(), **THREE), timer


@pytest.mark.parametrize("winning", [["stem", "fc1..fc2", "head"], ["stem", "head"], ["stem"], []])
def test_the_site_with_the_least_predicted_gain_goes_until_the_rest_wins(winning: list[str]) -> None:
    order = [["stem", "fc1..fc2", "head"], ["stem", "head"], ["stem"]]
    made, _ = three(winning)
    assert [sites for sites, _ in made.raced] == order[: order.index(winning) + 1 if winning else 3]
    assert [s.name for s in made.plan.routed] == winning
    for site in made.plan.sites[:3]:
        assert site.status == "routed" or site.reason.startswith("the rewritten model did not win: 0.50 x ")


def test_the_gain_is_in_time_not_in_shares() -> None:
    """The block keeps 60 of its 100 ms and gains 40; stem keeps a fifth of its 1 ms and gains 0.8: stem goes first."""
    made, _ = three(
        ["fc1..fc2", "head"],
        **{SHAPES[0]: {"block": 1.0, "light": 0.1, "gate": 0.1}, SHAPES[1]: {"block": 100.0, "light": 59.5}},
    )
    assert [sites for sites, _ in made.raced][:2] == [["stem", "fc1..fc2", "head"], ["fc1..fc2", "head"]]


# ------------------------------------------------------------------------------------------------ the full branch

HARD: dict[str, Any] = {"lights": [LowRank(8, "input")], "gate": ResidualGate(), "max_deviation": 0.02}


@pytest.mark.parametrize(("packed", "other", "wanted"), [
    (6.0, 7.0, Prepacked()), (12.0, 7.0, Transposed()), (12.0, 12.0, None),
])  # fmt: skip
def test_the_exact_form_whose_hard_rows_are_fastest_is_the_full_branch(
    packed: float, other: float, wanted: LightForm | None
) -> None:
    times = {"Prepacked()": packed, "Transposed()": other}
    made = decide(plain(), Recorded(lambda shape, n: {"packed": times.__getitem__}), two_kinds(), **HARD)
    site = made.site
    assert site.status == "routed", site.reason
    assert site.activity is not None
    assert 0.05 < site.activity < 0.4
    assert site.full == wanted
    kinds = {type(m) for m in made.module.modules()} & {PackedLinear, TransposedLinear}
    assert len(kinds) == (wanted is not None)
    assert "never runs" not in site.reason


def test_a_named_full_branch_is_the_only_one_and_the_plan_says_so() -> None:
    full = Pruned(1.0)
    made = decide(plain(), timer := Recorded(), two_kinds(), **HARD, full=full)
    assert timer.sites[0][3] == ["block", "Pruned(energy=1.0)"]
    assert made.site.full == full
    assert "; the full branch is Pruned(energy=1.0): the original block never runs" in made.site.reason
    dendrofx.set_tolerances(made.module, dict.fromkeys(dendrofx.tolerances(made.module), 0.0))
    branch, x = made.chosen["0..2"].branches.full, rows(50)
    assert branch is not None
    assert torch.equal(made.module(x), branch(x))
