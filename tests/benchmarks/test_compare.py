"""The command `python -m benchmarks.compare`, run twice in process: what it prints and writes."""

import csv
import io
import json
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import compare
from dendrofx import BFloat16, LowRank, Plan
from dendrofx.machine.race import race
from dendrofx.search.search_space import default_precisions

pytestmark = pytest.mark.slow

VARIANTS = ["eager", "scripted", "routed", "always-full", "always-light", "random", "oracle"]
ENTRY = {
    "case", "batch", "threads", "aa_ratio", "noisy", "unreliable", "refused", "transform_s", "variants", "sweep", "ablation",
    "plan",
}  # fmt: skip
VARIANT = {
    "name", "latency_ms", "speedup_vs_eager", "speedup_vs_scripted", "rows_per_s", "activity", "effective_compute",
    "plain_macs", "deviation", "agreement", "first_call_ms", "weight_bytes", "file_bytes",
}  # fmt: skip
POINT = {"tolerance", "activity", "effective_compute", "latency_ms", "deviation", "agreement"}
LIGHT_FORM = {"name", "latency_ms", "speedup_vs_scripted", "effective_compute", "deviation", "agreement"}
LIGHT, GATE = "LowRank(rank=16, basis='whitened')", "LearnedGate(directions=8)"
COUNTED = ["--quick", "--threads", "1", "--tune-seconds", "0"]
WIDE = ["--case", "wide", "--width", "128", "--depth", "1", "--batch", "64", "--max-deviation", "0.1"]


class Ran:
    """One run with everything written."""

    def __init__(self, folder: Path, text: str) -> None:
        self.folder, self.text = folder, text
        self.body: dict[str, Any] = json.loads((folder / "out.json").read_text(encoding="utf-8"))
        (self.entry,) = self.body["cases"]

    def variant(self, name: str) -> dict[str, Any]:
        return next(v for v in self.entry["variants"] if v["name"] == name)


@pytest.fixture(scope="module")
def short() -> Iterator[None]:
    """A run takes no longer than its transforms: what matters is not its times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.studies.compare.QUICK_SECONDS", 0.0)
        patch.setattr("dendrofx.compare.turns.race", partial(race, least_rounds=3))
        patch.setattr("dendrofx.compare.prepare.FIT_THREADS", 1)  # two threads take minutes on a busy machine
        yield
    torch.set_num_threads(1)


def run(folder: Path, *options: str) -> Ran:
    text = io.StringIO()
    with redirect_stdout(text):
        given = ["--verbose", "--out", str(folder), "--json", str(folder / "out.json")]
        assert compare.main([*COUNTED, *given, *options]) == 0
    return Ran(folder, text.getvalue())


@pytest.fixture(scope="module")
def digits(short: None, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("digits")
    return run(folder, "--case", "digits", "--batch", "16", "--sweep", "--plots", str(folder / "plots"))


@pytest.fixture(scope="module")
def wide(short: None, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("wide")
    return run(folder, *WIDE, "--light", LIGHT, "--gate", GATE, "--ablation", "--save-plan", str(folder / "made.json"))


# ------------------------------------------------------------------------------------------------------ what it says


def test_table_has_every_row(digits: Ran) -> None:
    lines = digits.text.partition("--- digits, batch 16")[2].partition("router skill")[0].splitlines()
    table = {line.split()[0]: line.split() for line in lines if line.strip()}
    assert set(VARIANTS) <= set(table)
    assert len(table["routed"]) == 14
    assert table["oracle"][1:6] == ["-"] * 5, "the oracle has no latency"
    for column in ("p50 ms", "p95 ms", "x eager", "x scripted", "rows/s", "activity %", "compute %", "dev mean"):
        assert column in digits.text


def test_what_must_be_said_under_the_table(digits: Ran) -> None:
    for words in (
        "router skill of ",
        " on 400 test rows (0 random, 1 oracle)",
        "mean deviation",
        "A/A ratio",
        "1 thread; ",
        f"torch {torch.__version__}",
        "first call ms",
        "file MB",
        "transform ",
        "measured on 400 samples that nothing was fitted to",
    ):
        assert words in digits.text
    claimed = not digits.entry["unreliable"]  # on a busy machine no times are compared
    for words in ("the scripted baseline", "always-full over scripted"):
        assert (words in digits.text) is claimed
    verdicts = (
        "routing earns its place",
        "routing ties with static-light",
        "routing does NOT earn its place here",
        "no speedup is claimed",  # on a busy machine
    )
    assert sum(v in digits.text for v in verdicts) == 1
    assert ("noisy: " in digits.text) == digits.entry["noisy"]


# --------------------------------------------------------------------------------------------------------- the JSON


def test_json_has_the_promised_fields(digits: Ran) -> None:
    assert set(digits.body) == {"machine", "cases"}
    assert {"cpu", "cores", "torch", "python"} <= set(digits.body["machine"])
    assert set(digits.entry) >= ENTRY
    assert (digits.entry["case"], digits.entry["batch"], digits.entry["threads"]) == ("digits", 16, 1)
    assert [v["name"] for v in digits.entry["variants"] if v["name"] in VARIANTS] == VARIANTS
    for variant in digits.entry["variants"]:
        assert set(variant) >= VARIANT
        assert set(variant["deviation"]) == {"mean", "p99", "max"}
        if variant["name"] != "oracle":
            assert set(variant["latency_ms"]) == {"p50", "p95"}


def test_the_oracle_has_no_latency(digits: Ran) -> None:
    oracle = digits.variant("oracle")
    keys = ("latency_ms", "speedup_vs_eager", "speedup_vs_scripted", "rows_per_s")
    assert [oracle[k] for k in keys] == [None] * 4


def test_figures_are_fractions(digits: Ran) -> None:
    for name in VARIANTS[2:]:
        variant = digits.variant(name)
        assert 0 <= variant["activity"] <= 1
        assert 0 < variant["effective_compute"] < 1.6, "where a gate reads the light branch, always-full runs that too"
        assert 0 <= variant["agreement"] <= 1
    assert (digits.variant("always-full")["activity"], digits.variant("always-light")["activity"]) == (1, 0)
    assert digits.variant("eager")["effective_compute"] == digits.variant("scripted")["effective_compute"] == 1
    assert digits.variant("scripted")["speedup_vs_scripted"] == digits.variant("eager")["speedup_vs_eager"] == 1


def test_routed_keeps_the_budget_and_its_controls_are_at_its_activity(digits: Ran) -> None:
    routed = digits.variant("routed")
    assert routed["deviation"]["mean"] <= 0.01
    assert routed["agreement"] >= 0.99
    assert routed["effective_compute"] < 0.5
    for name in ("random", "oracle"):
        assert digits.variant(name)["activity"] == pytest.approx(routed["activity"], abs=0.02)
    assert digits.variant("always-full")["deviation"]["max"] < 1e-5
    assert digits.variant("scripted")["deviation"]["max"] < 1e-5


# -------------------------------------------------------------------------------------------------------- the sweep


def test_sweep_moves_activity_from_1_to_0(digits: Ran) -> None:
    points = digits.entry["sweep"]
    assert len(points) >= 9
    assert all(set(p) >= POINT for p in points)
    active = [p["activity"] for p in points]
    assert (active[0], active[-1]) == (1, 0)
    assert active == sorted(active, reverse=True)
    assert len({round(a, 2) for a in active}) >= 9
    assert max(a - b for a, b in pairwise(active)) < 0.2
    assert [p["tolerance"] for p in points] == sorted(p["tolerance"] for p in points)
    assert points[0]["tolerance"] == points[0]["deviation"]["max"] == 0


def test_sweep_files(digits: Ran) -> None:
    plots = digits.folder / "plots"
    pictures = [f"digits-{name}.png" for name in ("activity", "compute", "images", "sites", "tradeoff")]
    assert sorted(p.name for p in plots.iterdir()) == sorted([*pictures, "digits-b16-t1.csv"])
    assert all((plots / n).read_bytes().startswith(b"\x89PNG") for n in pictures)
    with (plots / "digits-b16-t1.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    points = digits.entry["sweep"]
    assert [float(r["activity"]) for r in table] == [p["activity"] for p in points]
    assert [float(r["latency_ms_p50"]) for r in table] == [p["latency_ms"]["p50"] for p in points]
    assert [float(r["deviation_mean"]) for r in table] == [p["deviation"]["mean"] for p in points]
    assert "" not in {v for r in table for v in r.values()}


# ------------------------------------------------------------------------------------------------ forms, plan, ablation


def test_light_and_gate_are_used_and_the_plan_is_in_the_json(wide: Ran) -> None:
    file = wide.folder / "made.json"
    assert f"router skill of {GATE} at 0..2" in wide.text
    assert "made.json" in wide.text.partition("Wrote ")[2]
    plan = Plan.load(file)
    assert str(plan) in wide.text
    assert [(str(s.light), str(s.gate)) for s in plan.routed] == [(LIGHT, GATE)]
    assert wide.entry["plan"] == json.loads(file.read_text(encoding="utf-8"))
    assert {p.name for p in wide.folder.iterdir()} == {"out.json", "made.json", "wide-plan-b64.json", "wide-sites.png"}


def test_ablation(wide: Ran) -> None:
    low = [f"{p} on every row" for p in reversed(default_precisions())]
    forms = [LowRank(16, "whitened", p) for p in (None, *[p for p in default_precisions() if p != BFloat16()])]
    names = ["scripted", "scripted again", "prepack only", *low, *[f"{f} on every row" for f in forms], "routed"]
    records = wide.entry["ablation"]
    assert [r["name"] for r in records] == names
    table = wide.text.partition("ablation, batch 64")[2]
    lines = [line for line in table.splitlines() if line.startswith(tuple(names))]
    assert [line.split("  ")[0] for line in lines] == names
    by_name = {r["name"]: r for r in records}
    for record in records:
        assert set(record) == LIGHT_FORM
        assert set(record["latency_ms"]) == {"p50", "p95"}
        assert set(record["deviation"]) == {"mean", "p99", "max"}
        assert record["effective_compute"] > 0
    assert by_name["scripted"]["deviation"]["max"] == by_name["scripted again"]["deviation"]["max"] < 1e-5
    assert by_name["prepack only"]["deviation"]["max"] < 1e-4
    for key in ("effective_compute", "deviation", "agreement"):
        assert by_name["routed"][key] == wide.variant("routed")[key]
    for name in low:
        assert 1e-5 < by_name[name]["deviation"]["mean"] < 0.1


# -------------------------------------------------------------------------------------------------- rows that need nothing


@pytest.mark.parametrize(("case", "tables"), [
    ("ranker", 4), ("ranker-dlrm", 4), ("ranker-dcn", 4),
    pytest.param("padding", 2, marks=pytest.mark.real("transformers")),
])  # fmt: skip
def test_cases_with_a_limit(case: str, tables: int, short: None, tmp_path: Path) -> None:
    text = io.StringIO()
    small = ["--width", "12", "--depth", "1", "--user", "8", "--item", "4"]
    with redirect_stdout(text):
        assert compare.main([*COUNTED, *small, "--case", case, "--out", str(tmp_path)]) == 0
    lines = text.getvalue().splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 100
    assert sum("  limit   " in line for line in lines) == tables
    found = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))["cases"]
    assert [(f["case"], [v["name"] for v in f["variants"]]) for f in found] == [
        (case, ["eager", "scripted", "lossless"])
    ] * tables
    assert [f["variants"][2]["deviation"]["max"] < 1e-5 for f in found] == [True] * tables
    assert all(f["counted_limit"] >= 1 for f in found)
