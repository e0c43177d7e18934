"""Plans: replayed to the same module, and decided anew elsewhere."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import dendrofx
from dendrofx import LearnedGate, LowRank, Plan
from dendrofx.compare.controls import recipe
from dendrofx.machine.capability import capability, cpu_name
from dendrofx.plan.times import ModelTimes
from dendrofx.values.inputs import Inputs
from tests.asked import asked
from tests.made import KINDS, batches, hard_and_easy, made
from tests.models import compressible
from tests.recorded import EIGHT, LOW, Recorded, decide, rows


@pytest.fixture(autouse=True)
def _nothing_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("timed")

    monkeypatch.setattr("dendrofx.search.profiler.race", never)


@pytest.mark.parametrize("kind", KINDS)
def test_replay(kind: str, tmp_path: Path) -> None:
    first = made(kind)
    assert first.plan.rewrites is (kind != "nothing-routed")
    first.plan.save(tmp_path / "plan.json")
    loaded = Plan.load(tmp_path / "plan.json")
    assert loaded == first.plan
    assert str(loaded) == str(first.plan)
    torch.manual_seed(123)  # whatever was drawn since
    again = first.replayed(loaded)
    assert again.plan == first.plan
    assert str(again.plan) == str(first.plan)
    assert dendrofx.graph_text(again) == dendrofx.graph_text(first.module)
    (a, counts), (b, same_counts) = (Inputs.of(first.rows).call(m.forward_counted) for m in (first.module, again))
    assert torch.equal(a.nan_to_num(), b.nan_to_num())
    assert counts == same_counts
    assert tolerances(again) == tolerances(first.module)
    assert again.meta.keys() - {"dendrofx.settings"} == first.module.meta.keys() - {"dendrofx.settings"}
    if kind != "cascade":
        for site, score in recipe(first.module).scores.items():
            assert torch.equal(recipe(again).scores[site], score)


def tolerances(module: torch.nn.Module) -> dict[str, float]:
    return {name: float(tolerance) for name, tolerance in dendrofx.tolerances(module).items()}


def test_a_decision_on_times_is_replayed(tmp_path: Path) -> None:
    """Times of any size, the full branch that won, and the races."""
    model, data = compressible(), rows(400)
    timer = Recorded(lambda shape, n: {"light": 1e-3, "packed": 1e-9, "block": 1e9}, lambda s, n: (3e5, 2e5, 1e-7))
    options: dict[str, Any] = {"lights": [LowRank(4), LOW], "gate": LearnedGate(), "max_deviation": 0.01}
    first = decide(model, timer, data, **options, example=data)
    plan = replace(
        first.plan,
        origin=dendrofx.transform(
            model, calibration=data, options=dendrofx.Options(decide=False), light=LOW
        ).plan.origin,
    )
    plan.save(tmp_path / "plan.json")
    loaded = Plan.load(tmp_path / "plan.json")
    assert loaded == plan
    assert loaded.models == [ModelTimes(64, 2e5, 1e-7, 3e5 / 2e5 - 1)]
    again = dendrofx.transform(model, calibration=data, plan=loaded)
    assert torch.equal(again(hard_and_easy()), first.module(hard_and_easy()))
    assert dendrofx.graph_text(again) == dendrofx.graph_text(first.module)


def test_of_other_options_only_the_data_are_used() -> None:
    again = made("mlp").replayed(seed=5, budget=0.9, light=EIGHT)
    assert again.plan == made("mlp").plan
    assert torch.equal(again(hard_and_easy()), made("mlp").module(hard_and_easy()))


# ------------------------------------------------------------------------------------------------------ decided anew


def test_redecide_on_another_machine() -> None:
    options: dict[str, Any] = {"budget": 0.05, "batch_sizes": [1, 7], "min_speedup": 1.5, "seed": 3}
    model, data = compressible(), batches()
    origin = dendrofx.transform(model, calibration=data, light=LOW, **asked(**options, tune_seconds=0)).plan.origin
    assert origin is not None
    assert (origin.seed, origin.batch_sizes, origin.min_speedup) == (3, (1, 7), 1.5)
    assert origin.cpu == cpu_name()
    lesser = replace(capability(), avx2=False)
    other = replace(origin, cpu="Z80", cores=1, torch="1.7", dendrofx="0.0.1", capability=lesser)
    anew: dict[str, Any] = {"plan": Plan([], 0.05, origin=other), "redecide": True, "tune_seconds": 0}
    plan = dendrofx.transform(model, calibration=data, light=[LOW, EIGHT], **asked(**anew)).plan
    assert plan.routed
    assert (plan.max_deviation, plan.origin) == (0.05, origin)
    fresh = dendrofx.transform(model, calibration=[rows(300, 50)], light=LOW, **asked(**anew)).plan
    assert fresh.origin is not None
    assert fresh.origin.data != origin.data, "other data will do"
