"""The options of `python -m benchmarks.compare` for rungs and plans, and its ablation."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import dendrofx
from benchmarks import compare
from benchmarks.cases import CASES, CaseOptions
from benchmarks.studies.ablation import rungs
from dendrofx import BFloat16, Int8, LowRank, Plan, Prepacked
from dendrofx.compare.prepare import Asked, prepare
from dendrofx.machine.race import race
from dendrofx.search.ladder import default_precisions

# One site that is routed, in about a second: decided by counted cost, the same on every run.
WIDE = [
    "--case",
    "wide",
    "--width",
    "128",
    "--depth",
    "1",
    "--max-deviation",
    "0.1",
    "--tune-seconds",
    "0",
    "--threads",
    "1",
]
LIGHT, GATE = "LowRank(rank=16, basis='whitened')", "LearnedGate(directions=8)"
NAMED = [*WIDE, "--light", LIGHT, "--gate", GATE]
TIMELESS = ["name", "activity", "effective_compute", "plain_macs", "deviation", "agreement"]
RUNG = {"name", "latency_ms", "speedup_vs_scripted", "effective_compute", "deviation", "agreement"}


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "QUICK_SECONDS", 0.0)
    monkeypatch.setattr("dendrofx.compare.prepare.FIT_THREADS", 1)
    monkeypatch.setattr("dendrofx.compare.bench.race", partial(race, least_rounds=3))


def run(capsys: pytest.CaptureFixture[str], folder: Path, *options: str) -> tuple[str, dict[str, Any]]:
    """What it prints, and the first entry of its JSON."""
    capsys.readouterr()
    assert compare.main([*options, "--quick", "--json", str(folder / "out.json")]) == 0, capsys.readouterr().err
    entries = json.loads((folder / "out.json").read_text(encoding="utf-8"))["cases"]
    return capsys.readouterr().out, entries[0]


def timeless(entry: dict[str, Any]) -> list[dict[str, Any]]:
    return [{key: v[key] for key in TIMELESS} for v in entry["variants"] if v["name"] != "static-light"]


def failing(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    capsys.readouterr()
    try:
        code: object = compare.main([*options, "--quick"])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    out, err = capsys.readouterr()
    assert "p50 ms" not in out, "before anything is measured"
    return err


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plan of the case, made as the command makes it."""
    case = CASES["wide"](CaseOptions(0, True, 128, 1))
    asked = Asked(0.1, 0, LowRank(16, "whitened"), dendrofx.LearnedGate(), None, 0)
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    dendrofx.transform(case.model, **asked.options(case, 64, 0.1)).plan.save(path)
    return path


# ------------------------------------------------------------------------------------------------------ light and gate


def test_light_and_gate_are_used_and_the_plan_is_in_the_json(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, saved: Path
) -> None:
    text, entry = run(capsys, tmp_path, *NAMED, "--batch", "64", "--save-plan", str(tmp_path / "made.json"))
    assert f"router skill of {GATE} at 0..2" in text
    assert f"wrote {tmp_path / 'made.json'}\n" in text
    plan = Plan.load(tmp_path / "made.json")
    assert [(str(s.light), str(s.gate)) for s in plan.routed] == [(LIGHT, GATE)]
    assert entry["plan"] == json.loads((tmp_path / "made.json").read_text(encoding="utf-8"))
    assert plan == Plan.load(saved)
    assert {p.name for p in tmp_path.iterdir()} == {"out.json", "made.json"}


@pytest.mark.parametrize(("options", "message"), [
    (["--light", "Int8("], "argument --light: 'Int8(' is no form: write it as LowRank(rank=32) or Int8()"),
    (["--light", "Quantum()"], "argument --light: unknown form 'Quantum': this version has AlwaysFull, "),
    (["--light", "EnergyGate()"], "argument --light: EnergyGate() is no light form"),
    (["--gate", "Int8()"], "argument --gate: Int8() is no gate form"),
    (["--light", "LowRank(rank=0)"], "argument --light: rank must be "),
    (["--light", "LowRank(ranks=3)"], "argument --light: 'LowRank(ranks=3)': "),
    (["--gate", "__import__('os').getcwd()"], "argument --gate: \"__import__('os').getcwd()\" is no form: "),
    (["--light", "LowRank(rank=open)"], "argument --light: "),
    (["--gate", "7"], "argument --gate: '7' is no form: "),
    (["--plan", "p.json"], "--plan is for one case at one batch size: name them with --case and --batch"),
    (["--plan", "p.json", "--batch", "1", "2"], "--plan is for one case at one batch size: name them with --case and --batch"),
    (["--plan", "p.json", "--batch", "1", "--case", "wide", "digits"], "--plan is for one case at one batch size: "),
    (["--plan", "p.json", "--batch", "1", "--light", "Int8(7)"], "--plan says which light and gate: leave out --light and --gate"),
    (["--plan", "p.json", "--batch", "1", "--gate", "NoiseGate()"], "--plan says which light and gate: leave out "),
    (["--tune-seconds", "soon"], "argument --tune-seconds: must be a number "),
])  # fmt: skip
def test_bad_options(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert failing(capsys, *options).startswith(f"compare: {message}")


def test_a_light_form_that_this_cpu_lacks_is_a_reason(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lesser = dendrofx.Capability("x86_64", True, False, False, False, False, False)
    monkeypatch.setattr("dendrofx.light.int8.capability", lambda: lesser)
    text, entry = run(capsys, tmp_path, *WIDE, "--light", "Int8()", "--batch", "64")
    assert entry["refused"] is True
    assert "refused 0..2 (128 -> 128 -> 16): Int8() needs a CPU with VNNI" in text


# ------------------------------------------------------------------------------------------------------------- plans


def test_a_plan_is_reproduced(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decided, first = run(capsys, tmp_path, *NAMED, "--batch", "64")
    replayed, again = run(capsys, tmp_path, *WIDE, "--plan", str(saved), "--batch", "64")
    assert again["plan"] == first["plan"]
    assert timeless(again) == timeless(first)
    printed = str(Plan.load(saved))
    assert printed in decided
    assert printed in replayed


@pytest.mark.parametrize(("content", "message"), [
    (None, "cannot read the plan "),
    ("{", " is not JSON: "),
    ('{"format": 7}', "not a dendrofx plan of format 4: its format is 7"),
])  # fmt: skip
def test_a_file_that_is_no_plan(
    content: str | None, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "p.json").write_text(content, encoding="utf-8")
    error = failing(capsys, *WIDE, "--plan", str(tmp_path / "p.json"), "--batch", "64")
    assert error.startswith("compare: ")
    assert message in error


def test_a_plan_of_another_model(capsys: pytest.CaptureFixture[str], saved: Path) -> None:
    other = [*WIDE[:3], "64", *WIDE[4:]]
    assert "the plan was made for another model" in failing(capsys, *other, "--plan", str(saved), "--batch", "64")


def test_a_plan_holds_at_another_number_of_threads(saved: Path) -> None:
    """Threads are a setting: the case itself must be the same at each."""
    torch.set_num_threads(2)
    try:
        case = CASES["wide"](CaseOptions(0, True, 128, 1))
    finally:
        torch.set_num_threads(1)
    assert dendrofx.transform(case.model, calibration=case.calibration, plan=Plan.load(saved)).plan == Plan.load(saved)


def test_the_static_rival_of_a_plan_gets_the_same_budget(saved: Path) -> None:
    """The budget of the plan, not the command line's: the verdict compares them within one."""
    plan = Plan.load(saved)
    prepared = prepare(CASES["wide"](CaseOptions(0, True, 128, 1)), 64, Asked(0.01, 0, None, None, plan, 0))
    assert prepared.plan == plan
    assert prepared.plan.max_deviation == prepared.static_plans["static-light"].max_deviation == 0.1


@pytest.mark.parametrize("kind", ["folder", "below a file"])
def test_a_plan_that_cannot_be_saved_is_refused_before_anything_runs(
    kind: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    target = tmp_path if kind == "folder" else tmp_path / "file" / "plan.json"
    assert failing(capsys, *NAMED, "--batch", "64", "--save-plan", str(target)).startswith("compare: cannot write to ")


# ---------------------------------------------------------------------------------------------------------- ablation


def test_rungs_are_those_of_the_plan_each_once() -> None:
    low = default_precisions()
    model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 8)).eval()
    for light, structural in ((LowRank(8, precision=Int8(7)), True), (Int8(7), False)):
        plan = dendrofx.transform(model, calibration=torch.randn(100, 64), light=light, decide=False).plan
        found = rungs(plan)
        assert found[0] == Prepacked()
        assert set(found) >= {Prepacked(), *low}
        assert len(set(found)) == len(found)
        composed = [LowRank(8, precision=p) for p in (None, *[p for p in low if p != BFloat16()])]
        assert found[1 + len(low) :] == (composed if structural else [])


def test_ablation(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text, entry = run(capsys, tmp_path, *NAMED, "--batch", "64", "--ablation")
    low = [f"{p} on every row" for p in reversed(default_precisions())]
    forms = [LowRank(16, "whitened", p) for p in (None, *[p for p in default_precisions() if p != BFloat16()])]
    names = ["scripted", "scripted again", "prepack only", *low, *[f"{f} on every row" for f in forms], "routed"]
    records = entry["ablation"]
    assert [r["name"] for r in records] == names
    table = text.partition("ablation, batch 64")[2]
    lines = [line for line in table.splitlines() if line.startswith(tuple(names))]
    assert [line.split("  ")[0] for line in lines] == names
    by_name = {r["name"]: r for r in records}
    for record in records:
        assert set(record) == RUNG
        assert set(record["latency_ms"]) == {"p50", "p95"}
        assert set(record["deviation"]) == {"mean", "p99", "max"}
        assert record["effective_compute"] > 0
    assert by_name["scripted"]["deviation"]["max"] == by_name["scripted again"]["deviation"]["max"] < 1e-5
    assert by_name["prepack only"]["deviation"]["max"] < 1e-4
    routed = next(v for v in entry["variants"] if v["name"] == "routed")
    for key in ("effective_compute", "deviation", "agreement"):
        assert by_name["routed"][key] == routed[key]
    for name in low:
        assert 1e-5 < by_name[name]["deviation"]["mean"] < 0.1
