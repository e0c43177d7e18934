"""Plans: saved, loaded and replayed to the same module; printed; and decided anew elsewhere."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dendrofx
from dendrofx import Int8, LearnedGate, LowRank, Plan, Prepacked, Pruned, ResidualGate, SitePlan
from dendrofx.compare.controls import recipe
from dendrofx.machine.capability import capability, cpu_name
from dendrofx.plan.origin import Origin
from dendrofx.plan.times import ModelTimes
from tests.models import Residual, compressible
from tests.recorded import EIGHT, EVERY, LOW, Recorded, decide, rows

QUIET: dict[str, Any] = {"max_deviation": 0.05, "tune_seconds": 0}
Model = tuple[nn.Module, list[Tensor] | None, dict[str, Any]]


@pytest.fixture(autouse=True)
def _nothing_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("timed")

    monkeypatch.setattr("dendrofx.search.stopwatch.race", never)


def batches() -> list[Tensor]:
    return [rows(60, i) for i in range(10)]


MODELS: dict[str, Any] = {
    "the ladder": lambda: (compressible(), batches(), {}),
    "several sites": lambda: (Residual(64, 256).eval(), batches(), {"light": EIGHT, "decide": False}),
    "no data": lambda: (compressible(), None, {"light": LowRank(6), "gate": ResidualGate(), "max_deviation": 0.2}),
    "nothing routed": lambda: (nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8)).eval(), batches(), {"light": LOW}),
    "full prepacked": lambda: (compressible(), batches(), {"light": LOW, "full": Prepacked()}),
    "full pruned": lambda: (compressible(), batches(), {"light": LOW, "full": Pruned(0.99), "decide": False}),
    "pruned without ridge": lambda: (compressible(), batches(), {"light": Pruned(0.97, precision=Int8(7)), "decide": False}),
    "more rows than are kept": lambda: (
        Residual(64, 256).eval(), [rows(6000)], {"light": Pruned(0.9), "gate": LearnedGate(), "decide": False},
    ),
    "a gate that reads light": lambda: (compressible(), batches(), {"light": LOW, "gate": LearnedGate(3, reads="light")}),
    "selected by another seed": lambda: (Residual(64, 256).eval(), batches(), {"decide": False, "sites": "fc*", "seed": 7}),
}  # fmt: skip


def hard_and_easy() -> Tensor:
    return torch.cat([rows(300, 99), 50 * rows(30, 98), torch.zeros(2, 64)])


@pytest.mark.parametrize("kind", MODELS)
def test_a_plan_is_replayed_to_the_same_module(kind: str, tmp_path: Path) -> None:
    model, data, options = MODELS[kind]()
    first = dendrofx.transform(model, calibration=data, **{**QUIET, **options})
    assert bool(first.plan.routed) is (kind != "nothing routed")
    first.plan.save(tmp_path / "plan.json")
    loaded = Plan.load(tmp_path / "plan.json")
    assert loaded == first.plan
    assert str(loaded) == str(first.plan)
    torch.manual_seed(123)  # whatever was drawn since
    again = dendrofx.transform(model, calibration=data, plan=loaded)
    assert dendrofx.graph_text(again) == dendrofx.graph_text(first)
    assert str(again.plan) == str(first.plan)
    x = hard_and_easy()
    (a, counts), (b, same_counts) = first.forward_counted(x), again.forward_counted(x)
    assert torch.equal(a.nan_to_num(), b.nan_to_num())
    assert counts == same_counts
    assert {n: float(t) for n, t in dendrofx.tolerances(first).items()} == {
        n: float(t) for n, t in dendrofx.tolerances(again).items()
    }
    assert again.meta.keys() == first.meta.keys()
    for site, score in recipe(first).scores.items():
        assert torch.equal(recipe(again).scores[site], score)


def test_a_decision_on_times_is_replayed(tmp_path: Path) -> None:
    """Times of any size, the full branch that won, and the races."""
    model, data = compressible(), rows(400)
    timer = Recorded(lambda shape, n: {"light": 1e-3, "packed": 1e-9, "block": 1e9}, lambda s, n: (3e5, 2e5, 1e-7))
    options: dict[str, Any] = {"lights": [LowRank(4), LOW], "gate": LearnedGate(), "max_deviation": 0.01}
    first = decide(model, timer, data, **options, example=data)
    plan = replace(first.plan, origin=dendrofx.transform(model, calibration=data, decide=False, light=LOW).plan.origin)
    plan.save(tmp_path / "plan.json")
    loaded = Plan.load(tmp_path / "plan.json")
    assert loaded == plan
    assert loaded.models == [ModelTimes(64, 2e5, 1e-7, 3e5 / 2e5 - 1)]
    again = dendrofx.transform(model, calibration=data, plan=loaded)
    assert torch.equal(again(hard_and_easy()), first.module(hard_and_easy()))
    assert dendrofx.graph_text(again) == dendrofx.graph_text(first.module)


def test_a_plan_given_by_hand_from_another_module_is_replayed() -> None:
    model = compressible()
    routed = dendrofx.transform(model, calibration=batches(), light=LOW, gate=EVERY, **QUIET)
    again = dendrofx.transform(model, calibration=batches(), plan=routed.plan, seed=5, max_deviation=0.9, light=EIGHT)
    assert again.plan == routed.plan, "of the other options only example_inputs and calibration are used"
    assert torch.equal(again(hard_and_easy()), routed(hard_and_easy()))


# --------------------------------------------------------------------------------------------------------- the file


@pytest.mark.parametrize("ridge", [float("inf"), 1e-3])
def test_forms_survive_as_plain_json(ridge: float, tmp_path: Path) -> None:
    entry = SitePlan(
        "a", "routed", "why", "4 -> 8", Pruned(0.5, ridge, Int8(7)), LearnedGate(reads="scales"), Prepacked()
    )
    plan = Plan([entry], 0.1)
    plan.save(tmp_path / "plan.json")

    def no_constant(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    text = (tmp_path / "plan.json").read_text(encoding="utf-8")
    value = json.loads(text, parse_constant=no_constant)
    assert value["format"] == 4
    assert value == json.loads(json.dumps(plan.to_json()))
    (site,) = value["sites"]
    assert site["light"]["ridge"] == ("inf" if ridge == float("inf") else ridge)
    assert site["light"]["precision"] == {"form": "Int8", "weight_bits": 7, "smooth": 0.0}
    assert Plan.load(str(tmp_path / "plan.json")) == plan


def test_what_was_timed_and_what_was_not_survives(tmp_path: Path) -> None:
    plan = Plan([], 0.1, models=RACED, timing="tuning was interrupted", no_sites="no Linear in it: 1 LSTM")
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan


def test_saving_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "plan.json"
    target.write_text("old", encoding="utf-8")
    Plan([], 0.1).save(target)
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]
    assert Plan.load(target) == Plan([], 0.1)


# ------------------------------------------------------------------------------------------------------ decided anew


def test_redecide_on_another_machine(tmp_path: Path) -> None:
    model, data = compressible(), batches()
    made = dendrofx.transform(
        model, calibration=data, light=LOW, batch_sizes=[1, 7], min_speedup=1.5, seed=3, **QUIET
    ).plan
    assert made.origin is not None
    other = replace(
        made.origin, cpu="Z80", cores=1, torch="1.7", dendrofx="0.0.1", capability=replace(capability(), avx2=False)
    )
    there = replace(made, origin=other, sites=[])
    plan = dendrofx.transform(
        model, calibration=data, plan=there, redecide=True, tune_seconds=0, light=[LOW, EIGHT]
    ).plan
    assert plan.routed
    assert (plan.max_deviation, plan.origin) == (0.05, made.origin)
    assert (made.origin.seed, made.origin.batch_sizes, made.origin.min_speedup) == (3, (1, 7), 1.5)
    assert made.origin.cpu == cpu_name()
    fresh = dendrofx.transform(
        model, calibration=[rows(300, 50)], plan=there, redecide=True, tune_seconds=0, light=LOW
    ).plan
    assert fresh.origin is not None
    assert fresh.origin.data != made.origin.data, "other data will do"


# -------------------------------------------------------------------------------------------------------- as text


WAITED = "scripted waited for a CPU in 87 % of its time"
RACED = [
    ModelTimes(256, 10.0, 4.0, 0.013),
    ModelTimes(1, 0.4, 0.1, 0.0, "scripted: p95 20.7 ms, p50 0.4 ms"),
    ModelTimes(8, 23.0, 0.9, 0.001, WAITED, WAITED, None, 2.9, 2),
    ModelTimes(16, 23.0, 0.9, 0.001, WAITED, WAITED, 2.9, 3.1, 2),
]


def test_the_printed_plan() -> None:
    here = capability()
    origin = Origin("0.2.0", "2.13.0", "a CPU", 2, here, 1, "m", "d", 0, (1, 256), 1.05)
    entries = [
        SitePlan("fc1..fc2", "routed", "light costs 25 %", "4 -> 8 -> 2", Int8(), ResidualGate(), Prepacked(), 0.0125, 1.0,
                 0.031, 0.26, 0.875, 256, 3.14159, 1.2345, 1.3, 0.4),
        SitePlan("head", "routed", "by the bound", "2 -> 2", LowRank(2), EVERY, None, 0.5),
        SitePlan("stem", "refused", "no light form pays (%stem)", "4 -> 4"),
    ]  # fmt: skip
    plan = Plan(entries, 0.01, 0.0091, (40, 20, 20, 20), 0.01, RACED, origin, timing="tuning was interrupted")
    lines = str(plan).splitlines()
    cells = [[c.strip() for c in line.split("  ") if c.strip()] for line in lines[:4]]
    assert cells[0] == [
        "routed site", "shape", "light", "gate", "full", "tolerance", "activity", "compute", "skill", "block ms", "predicted",
        "measured",
    ]  # fmt: skip
    assert cells[2] == [
        "fc1..fc2", "4 -> 8 -> 2", "Int8()", "ResidualGate()", "Prepacked()", "0.0125", "3.1 %", "26.0 %", "0.88", "3.14",
        "1.23", "1.3",
    ]  # fmt: skip
    assert cells[3] == ["head", "2 -> 2", "LowRank(rank=2, basis='weight')", "AlwaysLight()", "block", "0.5"]
    assert lines[4:] == [
        "",
        "routed fc1..fc2 (4 -> 8 -> 2): light costs 25 %",
        "routed head (2 -> 2): by the bound",
        "refused stem (4 -> 4): no light form pays (%stem)",
        "tuning was interrupted",
        "whole model at batch 256: 10 ms scripted, 4 ms rewritten, 2.50 x (A/A: 1.3 % off)",
        "whole model at batch 1: 0.4 ms scripted, 0.1 ms rewritten, 4.00 x (A/A: 0.0 % off); noisy:",
        "  scripted: p95 20.7 ms, p50 0.4 ms",
        "whole model at batch 8: 23 ms scripted, 0.9 ms rewritten, UNRELIABLE: 25.56 x by the medians, 2.90",
        "  x by CPU time on one thread (scripted waited for a CPU in 87 % of its time)",
        "whole model at batch 16: 2.90 x (A/A: 0.1 % off); medians UNRELIABLE, 23 ms scripted, 0.9 ms",
        "  rewritten: 25.56 x by the medians, 2.90 x by the quickest calls, 3.10 x by CPU time on one",
        "  thread (scripted waited for a CPU in 87 % of its time)",
        "mean deviation at most 0.0091 (95 % limit on 20 calibration samples), budget 0.01; 40 samples fitted lights, 20 gates,"
        " 20 chose among them",
    ]
    assert str(Plan(entries[2:], 0.01, 0.0, (40, 20, 20, 20))).splitlines() == [
        "refused stem (4 -> 4): no light form pays (%stem)",
        "nothing is routed: the outputs are the original's (budget 0.01)",
    ]
    assert str(Plan(entries[1:2], 0.5)).endswith(
        "tolerances from the bound alone (no calibration data), max_deviation 0.5"
    )
