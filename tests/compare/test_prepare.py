"""What a comparison is made of: the same seed gives the same rows, plans are reproduced, and certified rows are said to be."""

from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch

import dendrofx
from benchmarks.cases import CASES, CaseOptions
from dendrofx import LowRank, Plan
from dendrofx.compare.bench import Bench
from dendrofx.compare.case import Case
from dendrofx.compare.prepare import Asked, Prepared, prepare
from dendrofx.compare.tables import footer, table
from dendrofx.compare.variants import build_variants
from dendrofx.errors import InputError
from dendrofx.guarantee import Budget, binomial_p
from dendrofx.machine.race import race
from tests.made_records import MACHINE

# One site that is routed, decided by counted cost: the same on every run.
COUNTED = Asked(0.1, light=LowRank(16, "whitened"), gate=dendrofx.LearnedGate(), tune_seconds=0)


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("dendrofx.compare.prepare.FIT_THREADS", 1)  # two threads take minutes on a busy machine
    yield
    torch.set_num_threads(1)


def wide(seed: int = 0, width: int = 128, **options: Any) -> Case:
    return CASES["wide"](CaseOptions(seed, True, width, 1, **options))


@cache
def decided() -> Prepared:
    return prepare(wide(), 64, COUNTED)


def figures(prepared: Prepared, seed: int = 0) -> dict[str, list[Any]]:
    """What each row but the static rival computes, by its name."""
    bench = Bench(prepared, 64, 0.0, seed)
    variants = build_variants(prepared, seed)
    found = {n: bench.quality(v.module, v.counted) for n, v in variants.items() if n != "static-light"}
    return {
        n: [q.activity, q.effective_compute, q.plain_macs, q.agreement, q.mean, q.p99, q.max] for n, q in found.items()
    }


@pytest.mark.slow
def test_the_same_seed_gives_the_same_routes_and_deviations_at_any_number_of_threads() -> None:
    first = figures(decided())
    again = prepare(wide(), 64, COUNTED)
    assert (again.plan, figures(again)) == (decided().plan, first)
    assert first["routed"][0] is not None
    torch.set_num_threads(2)
    threaded = prepare(wide(), 64, COUNTED)
    routes = [[(s.name, s.status, s.light, s.gate) for s in p.plan.sites] for p in (threaded, decided())]
    assert routes[0] == routes[1]
    for name, found in figures(threaded).items():
        assert found[:4] == first[name][:4]
        assert found[4:] == pytest.approx(first[name][4:], rel=1e-4, abs=1e-9)  # sums in another order


@pytest.mark.slow
def test_another_seed_is_another_run() -> None:
    other = figures(prepare(wide(1), 64, Asked(0.1, 1, COUNTED.light, COUNTED.gate, tune_seconds=0)), 1)
    assert other != figures(decided())


@pytest.mark.slow
def test_refusals_are_explained() -> None:
    refused = prepare(wide(width=32), 64, Asked(1e-6, tune_seconds=0))
    assert refused.refused
    assert not refused.plan.rewrites
    assert refused.routed.plan.rewrites, "with decide=False, for those who want to look"


def test_a_light_form_that_this_cpu_lacks_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    lesser = dendrofx.Capability("x86_64", True, False, False, False, False, False)
    monkeypatch.setattr("dendrofx.light.int8.capability", lambda: lesser)
    made = prepare(wide(), 64, Asked(0.1, light=dendrofx.Int8(), tune_seconds=0))
    assert made.refused
    assert "0..2  refused  Int8() needs a CPU with VNNI" in str(made.plan)


# --------------------------------------------------------------------------------------------------------------- plans


@pytest.mark.slow
def test_a_plan_is_reproduced_and_its_static_rival_gets_the_same_budget(tmp_path: Path) -> None:
    """The budget of the plan, not that of the command line: the verdict compares them within one."""
    decided().plan.save(tmp_path / "plan.json")
    plan = Plan.load(tmp_path / "plan.json")
    assert [(s.light, s.gate) for s in plan.routed] == [(COUNTED.light, COUNTED.gate)]
    replayed = prepare(wide(), 64, Asked(0.01, plan=plan, tune_seconds=0))
    assert replayed.plan == plan == decided().plan
    assert replayed.plan.max_deviation == replayed.static_plans["static-light"].max_deviation == 0.1
    assert figures(replayed) == figures(decided())
    with pytest.raises(InputError, match="the plan was made for another model"):
        prepare(wide(width=64), 64, Asked(plan=plan))


def test_a_plan_holds_at_another_number_of_threads() -> None:
    """Threads are a setting: the case itself must be the same at each."""
    torch.set_num_threads(2)
    case = wide()
    torch.set_num_threads(1)
    plan = decided().plan
    assert dendrofx.transform(case.model, calibration=case.calibration, plan=plan).plan == plan


# ----------------------------------------------------------------------------------------------------------- budgets


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["block", "model"])
def test_a_certified_row_is_said_to_be_one(scope: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dendrofx.compare.turns.race", partial(race, least_rounds=3))
    asked = Asked(budget=Budget("flip", 0.1, 0.9), scope=scope, light=LowRank(16), tune_seconds=0)
    prepared = prepare(wide(certified=True, decides=True), 64, asked)
    record = Bench(prepared, 64, 0.0, 0).measure(build_variants(prepared, 0))
    text, entry = f"{table(record)}\n{footer(record, MACHINE, 0)}", record.to_json()
    rows, shown = {v["name"]: v for v in entry["variants"]}, entry["certificate"]
    assert shown is not None, text
    assert rows["routed"]["certified"] is True
    assert "certified" not in rows["scripted"]
    assert "flip %" in text
    assert rows["scripted"]["loss"] == 0.0
    assert shown["p_value"] == pytest.approx(binomial_p(shown["losses"], shown["n"], shown["alpha"]))
    assert shown["p_value"] <= shown["delta"]
    assert "its budget is certified: flip at most 10 % with 90 % confidence" in text
    assert ("router skill on the margin lost" in text) is (scope == "model")
