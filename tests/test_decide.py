"""The decision, on recorded times: what is taken, what is refused and why, and what happens on a disturbed machine."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import dendrofx
from dendrofx import EnergyGate, InputError, Int8, LightForm, LowRank, Prepacked, Pruned, ResidualGate
from dendrofx.light.kernels import PackedLinear
from tests.models import Residual, compressible
from tests.recorded import FAST, SLOW, Medians, Recorded, decide

LOW = LowRank(8)
LOW8 = LowRank(8, precision=Int8(weight_bits=7))
EIGHT = Int8(weight_bits=7)
LIGHTS: list[LightForm] = [LOW, LOW8, EIGHT]
ENERGY = EnergyGate()
NAMED: dict[str, Any] = {"lights": [LOW], "gate": ENERGY}
NOT_TIMED = "not timed: tuning was interrupted or out of time (tune_seconds) before its turn"


def rows(count: int = 200, seed: int = 0) -> Tensor:
    return torch.randn(count, 64, generator=torch.Generator().manual_seed(seed))


def two_kinds(count: int = 400) -> Tensor:
    """Rows of a subspace of six dimensions, and a few that leave it."""
    base = 20 * torch.randn(count, 6) @ torch.linalg.qr(torch.randn(64, 6)).Q.t()
    return torch.where(torch.rand(count, 1) < 0.85, base, torch.randn(count, 64))


def plain() -> nn.Sequential:
    return nn.Sequential(nn.Linear(64, 256, bias=False), nn.ReLU(), nn.Linear(256, 8)).eval()


def is_the_original(routed: nn.Module, model: nn.Module) -> bool:
    x = rows(50, 1)
    return torch.equal(routed(x), model(x)) and dendrofx.tolerances(routed) == {}


# --------------------------------------------------------------------------------------------------- what is taken


@pytest.mark.parametrize("fastest", LIGHTS, ids=str)
def test_the_fastest_candidate_within_the_budget_is_taken(fastest: LightForm) -> None:
    timer = Recorded(lambda shape, n: {"light": lambda form: 1.0 if form == fastest else 4.0})
    made = decide(compressible(), timer, rows(), lights=LIGHTS, gate=ENERGY)
    site = made.site
    assert timer.sites == [("64 -> 256 -> 8", 64, [str(f) for f in LIGHTS], ["block", "Prepacked()"])]
    assert made.raced == [(["0..2"], 64)]
    assert (site.status, site.light, site.gate, site.activity) == ("routed", fastest, ENERGY, 0.0)
    assert (site.rows, site.block_ms, site.predicted_ms, site.measured_ms) == (64, 10.0, 1.5, 5.0)
    assert site.break_even == pytest.approx(1.0 if site.predicted_ms is None else site.break_even)
    assert "pays below an activity of" in site.reason


def test_a_faster_one_that_misses_the_budget_is_not_taken() -> None:
    blind = Pruned(0.3)
    timer = Recorded(lambda shape, n: {"light": lambda form: 0.01 if form == blind else 6.0})
    made = decide(compressible(), timer, rows(), lights=[blind, LOW], gate=ENERGY)
    assert str(blind) in timer.sites[0][2]
    assert made.site.light == LOW


@pytest.mark.parametrize("skilful_ms", [0.6, 3.0], ids=["a tie", "far dearer"])
def test_ties_go_to_the_gate_with_more_skill(skilful_ms: float) -> None:
    """5.1 ms and 5.0 ms are as good as equal, 7.5 ms are not."""
    model = compressible()
    found = decide(model, None, rows(), lights=[LOW]).run.explored.found["0..2"]
    best = max(found, key=lambda c: -1.0 if c.skill is None else c.skill).branches.gate_form
    timer = Recorded(lambda shape, n: {"light": 4.5})
    plain_gate = {str(c.branches.gate_form): 0.5 for c in found} | {str(best): skilful_ms}
    original = timer.site

    def site(shape: str, x: Tensor, candidates: Any, fulls: Any) -> Any:
        times = original(shape, x, candidates, fulls)
        gates = {(light, gate): plain_gate[gate] for light, gate in times.gate}
        return type(times)(times.rows, times.block, times.full, times.light, gates, times.split, times.moved)

    timer.site = site  # type: ignore[method-assign]
    made = decide(model, timer, rows(), lights=[LOW])
    assert len({c.branches.gate_form for c in found}) >= 3
    assert (made.site.gate == best) is (skilful_ms < 1)


# ------------------------------------------------------------------------------------------------ what is refused


def test_a_site_whose_parts_cost_more_than_its_block_is_refused_with_the_figures() -> None:
    model = compressible()
    made = decide(model, timer := Recorded(lambda shape, n: {"light": 9.0, "gate": 1.25}), rows(), **NAMED)
    assert made.site.reason == (
        "no light form pays: the cheapest, LowRank(rank=8, basis='weight') with EnergyGate(), would take 10.2 ms where the"
        " block takes 10 (64 rows; it breaks even at 0.0 % activity) within the budget on calibration rows (%_2)"
    )
    assert timer.raced == []
    assert is_the_original(made.module, model)


def test_the_figures_of_a_refusal_are_those_that_do_not_pay() -> None:
    """At 1 row the gate costs more than the block: that size must be named, not the one at which routing pays."""
    timer = Recorded(lambda shape, n: {"block": 10.0 if n > 1 else 0.4})
    made = decide(compressible(), timer, rows(), **NAMED, batch_sizes=(1, 64))
    assert made.plan.routed == []
    assert "would take 1.5 ms where the block takes 0.4 (1 rows" in made.site.reason


@pytest.mark.parametrize(("medians", "why"), [
    ((10.0, 10.0, 9.8), "1.02 x the scripted original at batch 64 (10 ms), min_speedup is 1.05"),
    ((10.0, 10.0, 20.0), "0.50 x the scripted original at batch 64 (10 ms), min_speedup is 1.05"),
    ((11.5, 10.0, 9.0), "1.11 x the scripted original at batch 64 (10 ms), within the 15 % that the original differed from itself"),
])  # fmt: skip
def test_a_win_that_is_none_returns_the_original(medians: Medians, why: str) -> None:
    model = compressible()
    made = decide(model, Recorded(races=lambda sites, n: medians), rows(), **NAMED)
    assert made.plan.routed == []
    assert made.site.reason == f"the rewritten model did not win: {why} (%_2)"
    assert is_the_original(made.module, model)
    (race,) = made.plan.models
    assert (race.scripted_ms, race.routed_ms) == (10.0, medians[2])
    assert f"whole model at batch 64: 10 ms scripted, {medians[2]:.3g} ms rewritten" in str(made.plan)


def test_min_speedup_is_what_the_caller_says() -> None:
    timer = Recorded(races=lambda sites, n: (10.0, 10.0, 9.8))
    assert decide(compressible(), timer, rows(), **NAMED, min_speedup=1.01).plan.routed
    made = decide(compressible(), Recorded(), rows(), **NAMED, min_speedup=3.0)
    assert made.site.reason.endswith("2.00 x the scripted original at batch 64 (10 ms), min_speedup is 3 (%_2)")


@pytest.mark.parametrize("losing", [1, 64, 256])
def test_it_must_win_at_each_batch_size(losing: int) -> None:
    timer = Recorded(races=lambda sites, n: SLOW if n == losing else FAST)
    made = decide(compressible(), timer, rows(), **NAMED, batch_sizes=(1, 64, 256))
    assert [n for _, n in made.raced] == [1, 64, 256]
    assert made.plan.routed == []
    assert f"at batch {losing} " in made.site.reason


# ----------------------------------------------------------------------------------------------- several sites

COSTS = {"64 -> 64": 2.0, "64 -> 256 -> 64": 8.0, "64 -> 4": 5.0}  # stem, fc1..fc2, head, each of 10 ms
THREE: dict[str, Any] = {"lights": [EIGHT], "gate": ENERGY, "max_deviation": 0.3}


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
        **{"64 -> 64": {"block": 1.0, "light": 0.1, "gate": 0.1}, "64 -> 256 -> 64": {"block": 100.0, "light": 59.5}},
    )
    assert [sites for sites, _ in made.raced][:2] == [["stem", "fc1..fc2", "head"], ["fc1..fc2", "head"]]


# -------------------------------------------------------------------------------------------- time and interruption


def test_expired_from_the_start() -> None:
    model = Residual(64, 256).eval()
    made = decide(model, timer := Recorded(expired=True), rows(), **THREE)
    assert [s.reason.partition(" (%")[0] for s in made.plan.sites[:3]] == [NOT_TIMED] * 3
    assert (timer.sites, timer.raced) == ([], [])
    assert is_the_original(made.module, model)


def test_after_ctrl_c_only_what_was_timed_is_routed() -> None:
    made = decide(Residual(64, 256).eval(), timer := Recorded(interrupt=["site 2"]), rows(), **THREE)
    assert [s.name for s in made.plan.routed] == ["stem"]
    assert [s.reason.partition(" (%")[0] for s in made.plan.sites[1:3]] == [NOT_TIMED] * 2
    assert made.raced == [(["stem"], 64)]
    assert len(timer.sites) == 2
    assert made.plan.routed[0].measured_ms is None, "nothing is timed any more"


def test_ctrl_c_in_the_race_of_the_whole_model_routes_nothing() -> None:
    model = compressible()
    made = decide(model, Recorded(interrupt=["models 1"]), rows(), **NAMED)
    assert made.site.reason == (
        "tuning was interrupted before the rewritten model was timed against the original (%_2)"
    )
    assert made.plan.models == []
    assert is_the_original(made.module, model)


def test_ctrl_c_in_the_last_race_costs_its_figure_only() -> None:
    made = decide(compressible(), Recorded(interrupt=["models 2"]), rows(), **NAMED)
    assert (made.site.status, made.site.measured_ms) == ("routed", None)


def test_a_second_ctrl_c_ends_the_program() -> None:
    timer = Recorded(interrupt=["site 2", "models 1"])
    with pytest.raises(KeyboardInterrupt):
        decide(Residual(64, 256).eval(), timer, rows(), **THREE)


class Interrupted(LowRank):
    """Ctrl-C while the second site is fitted."""

    def build(self, data: Any) -> nn.Module:
        if data.linears[0].out_features == 256:
            raise KeyboardInterrupt
        return super().build(data)


def test_ctrl_c_while_fitting_returns_the_original() -> None:
    model = Residual(64, 256).eval()
    made = decide(model, Recorded(), rows(), lights=[Interrupted(2)], gate=ENERGY)
    fitted = "tuning was interrupted before its light branches and gates were fitted"
    assert [s.reason.partition(" (%")[0] for s in made.plan.sites[:3]] == [NOT_TIMED, fitted, fitted]
    assert is_the_original(made.module, model)


# ------------------------------------------------------------------------------------------------ the full branch

HARD: dict[str, Any] = {"lights": [LowRank(8, "input")], "gate": ResidualGate(), "max_deviation": 0.02}


@pytest.mark.parametrize(("packed", "wanted"), [(6.0, Prepacked()), (12.0, None)])
def test_prepacked_is_the_full_branch_where_its_hard_rows_are_faster(packed: float, wanted: LightForm | None) -> None:
    made = decide(plain(), Recorded(lambda shape, n: {"packed": packed}), two_kinds(), **HARD)
    site = made.site
    assert site.status == "routed", site.reason
    assert site.activity is not None
    assert 0.05 < site.activity < 0.4
    assert site.full == wanted
    assert any(isinstance(m, PackedLinear) for m in made.module.modules()) is (wanted is not None)
    assert "never runs" not in site.reason


def test_a_named_full_branch_is_the_only_one_and_the_plan_says_so() -> None:
    full = Pruned(1.0)
    made = decide(plain(), timer := Recorded(), two_kinds(), **HARD, full=full)
    assert timer.sites[0][3] == ["block", "Pruned(energy=1.0)"]
    assert made.site.full == full
    assert "; the full branch is Pruned(energy=1.0): the original block never runs" in made.site.reason
    dendrofx.set_tolerances(made.module, {"_0_2": 0.0} if "_0_2" in dendrofx.tolerances(made.module) else {})


# --------------------------------------------------------------------------------------------------- what is timed


def test_without_a_decision_nothing_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("timed")

    monkeypatch.setattr("dendrofx.stopwatch.race", never)
    for options in ({"decide": False}, {"tune_seconds": 0}):
        plan = dendrofx.transform(compressible(), calibration=rows(), light=LOW, gate=ENERGY, **options).plan  # type: ignore[arg-type]
        assert plan.models == []
        assert [(s.rows, s.block_ms, s.predicted_ms, s.measured_ms) for s in plan.sites] == [(None,) * 4]


def test_without_calibration_only_the_whole_model_is_timed() -> None:
    for example, times in ((rows(32), [(["0..2"], 64)]), (None, [])):
        made = decide(compressible(noise=1e-4), timer := Recorded(), None, lights=[LowRank(6)], example=example)
        assert (timer.sites, made.raced) == ([], times)
        assert [s.name for s in made.plan.routed] == ["0..2"]
    timer = Recorded(races=lambda sites, n: SLOW)
    assert decide(compressible(noise=1e-4), timer, None, lights=[LowRank(6)], example=rows(32)).plan.routed == []


def test_batches_that_cannot_be_cut_to_the_size_are_named() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mlp = compressible()

        def forward(self, x: Tensor, scale: Tensor) -> Tensor:
            return self.mlp(x) * scale.mean()  # type: ignore[no-any-return]

    batches = [(rows(20, i), torch.ones(3)) for i in range(10)]
    with pytest.raises(InputError) as error:
        dendrofx.transform(Pair().eval(), calibration=batches, light=LOW, gate=ENERGY, max_deviation=0.1, batch_sizes=[7])
    assert str(error.value) == "batch_sizes: no calibration batch can be cut or repeated to 7 samples"


# --------------------------------------------------------------------------------------------- a disturbed machine

wild = st.one_of(st.sampled_from([1e-9, 1e-3, 1.0, 1e9]), st.floats(1e-6, 1e6))


@settings(derandomize=True, deadline=None, max_examples=25)
@given(st.lists(wild, min_size=21, max_size=21), st.lists(wild, min_size=9, max_size=9))
def test_wild_times_never_crash_and_a_lost_race_never_routes(parts: list[float], medians: list[float]) -> None:
    torch.manual_seed(0)
    names = ["block", "light", "gate", "packed", "split", "moved"]
    shapes = {shape: dict(zip(names, parts[7 * i :], strict=False)) for i, shape in enumerate(COSTS)}
    by_size = {n: tuple(medians[3 * i : 3 * i + 3]) for i, n in enumerate((1, 16, 64))}
    timer = Recorded(lambda shape, n: shapes[shape], lambda sites, n: by_size[n])  # type: ignore[arg-type,return-value]
    options = {**THREE, "lights": [LowRank(48, "input"), EIGHT]}
    made = decide(SMALL, timer, rows(60), **options, batch_sizes=(1, 16, 64))
    wins = all(max(min(a, b) / r, 0) >= max(1.05, max(a, b) / min(a, b)) for a, b, r in by_size.values())
    assert wins or made.plan.routed == []
    assert all(s.reason for s in made.plan.sites)
    for site in made.plan.routed:
        assert site.predicted_ms is not None
        assert site.block_ms is not None
        assert site.predicted_ms < site.block_ms
        assert math.isfinite(site.predicted_ms)
    if not made.plan.routed:
        assert is_the_original(made.module, SMALL)


torch.manual_seed(0)
SMALL = Residual(64, 256).eval()
