"""The command `python -m benchmarks.compare`, run in process: table, JSON, sweep files, errors."""

import csv
import importlib
import json
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import compare
from dendrofx.machine.race import race

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
# What two runs of one seed share: everything but times. Sizes are those of a file with other paths in it, so left out.
TIMELESS = ["name", "activity", "effective_compute", "plain_macs", "deviation", "agreement"]
# A run that takes a second: what matters is not its figures.
TINY = ["--case", "wide", "--width", "32", "--depth", "1", "--quick", "--batch", "64", "--threads", "1"]
SMALL = [*TINY, "--light", "LowRank(rank=2)", "--gate", "EnergyGate()"]
DIGITS = ["--batch", "16", "--threads", "1", "--tune-seconds", "0"]
# One that routes, decided by counted cost: the same on every run.
COUNTED = [
    "--case",
    "wide",
    "--width",
    "128",
    "--depth",
    "1",
    "--batch",
    "64",
    "--max-deviation",
    "0.1",
    "--tune-seconds",
    "0",
]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(compare, "QUICK_SECONDS", 0.0)
    monkeypatch.setattr(compare, "QUICK_TUNE", 0.2)
    monkeypatch.setattr("dendrofx.compare.bench.race", partial(race, least_rounds=3))
    monkeypatch.setattr("dendrofx.search.stopwatch.SITE_SECONDS", 0.0)
    monkeypatch.setattr("dendrofx.search.stopwatch.MODEL_SECONDS", 0.0)
    monkeypatch.setattr("dendrofx.compare.prepare.FIT_THREADS", 1)  # two threads take minutes on a busy machine
    yield
    torch.set_num_threads(1)


class Ran:
    """One run on digits with everything written."""

    def __init__(self, folder: Path, text: str) -> None:
        self.folder, self.text = folder, text
        self.body: dict[str, Any] = json.loads((folder / "out.json").read_text(encoding="utf-8"))
        (self.entry,) = self.body["cases"]

    def variant(self, name: str) -> dict[str, Any]:
        return next(v for v in self.entry["variants"] if v["name"] == name)


def run(folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> Ran:
    capsys.readouterr()
    assert compare.main([*options, "--quick", "--json", str(folder / "out.json")]) == 0
    return Ran(folder, capsys.readouterr().out)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compare")


@pytest.fixture
def digits(folder: Path, capsys: pytest.CaptureFixture[str]) -> Ran:
    """Run once for all tests of this file."""
    kept = folder / "text.txt"
    if not kept.exists():
        ran = run(folder, capsys, *DIGITS, "--sweep", "--plots", str(folder / "plots"))
        kept.write_text(ran.text, encoding="utf-8")
    return Ran(folder, kept.read_text(encoding="utf-8"))


def timeless(ran: Ran) -> list[dict[str, Any]]:
    return [{key: v[key] for key in TIMELESS} for v in ran.entry["variants"]]


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
        "the scripted baseline",
        "mean deviation",
        "always-full over scripted",
        "A/A ratio",
        "1 thread; ",
        f"torch {torch.__version__}",
        "first call ms",
        "file MB",
        "transform ",
        "400 test samples, used for nothing else",
    ):
        assert words in digits.text
    verdicts = (
        "routing earns its place",
        "routing ties with static-light",
        "routing does NOT earn its place here",
        "no speedup is claimed",  # on a busy machine
    )
    assert sum(v in digits.text for v in verdicts) == 1
    assert ("noisy: " in digits.text) == digits.entry["noisy"]


def test_refusals_are_explained(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    ran = run(tmp_path, capsys, *TINY, "--max-deviation", "1e-6")
    assert "transform refused every site and returned the original" in ran.text
    assert "decide=False" in ran.text
    assert ran.entry["refused"] is True


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
    names = ["digits-b16-t1-activity.png", "digits-b16-t1-compute.png", "digits-b16-t1.csv"]
    assert sorted(p.name for p in plots.iterdir()) == names
    assert all((plots / n).read_bytes().startswith(b"\x89PNG") for n in names[:2])
    with (plots / names[2]).open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    points = digits.entry["sweep"]
    assert [float(r["activity"]) for r in table] == [p["activity"] for p in points]
    assert [float(r["latency_ms_p50"]) for r in table] == [p["latency_ms"]["p50"] for p in points]
    assert [float(r["deviation_mean"]) for r in table] == [p["deviation"]["mean"] for p in points]
    assert "" not in {v for r in table for v in r.values()}


# ------------------------------------------------------------------------------------------------------ determinism


def test_same_seed_same_routes_and_deviations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, again, threaded = (run(tmp_path, capsys, *COUNTED, "--threads", n) for n in ("1", "1", "2"))
    assert first.entry["refused"] is False
    assert timeless(again) == timeless(first)
    for a, b in zip(timeless(threaded), timeless(first), strict=True):
        assert a.pop("deviation") == pytest.approx(b.pop("deviation"), rel=1e-4)  # sums in another order
        assert a == b
    assert again.entry["plan"] == first.entry["plan"]
    routes = [
        [(s["name"], s["status"], s["light"], s["gate"]) for s in r.entry["plan"]["sites"]] for r in (first, threaded)
    ]
    assert routes[0] == routes[1]


def test_another_seed_is_another_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, same, other = (
        timeless(run(tmp_path, capsys, *SMALL, "--tune-seconds", "0", "--seed", seed)) for seed in ("0", "0", "1")
    )
    assert first == same
    assert first != other


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["--case", "nope"],
            "compare: unknown case 'nope': choose from digits, tiara, wide, minilm, antiberty, rxnmapper, kernels, hf\n",
        ),
        (["--batch", "0"], "compare: argument --batch: must be a whole number of at least 1, got '0'\n"),
        (["--batch", "2.5"], "compare: argument --batch: must be a whole number of at least 1, got '2.5'\n"),
        (["--threads", "x"], "compare: argument --threads: must be a whole number of at least 1, got 'x'\n"),
        (["--max-deviation", "0"], "compare: argument --max-deviation: must be a number above 0 such as 0.01, got '0'\n"),
        (["--max-deviation", "nan"], "compare: argument --max-deviation: must be a number above 0 such as 0.01, got 'nan'\n"),
        (["--max-deviation", "1%"], "compare: argument --max-deviation: must be a number above 0 such as 0.01, got '1%'\n"),
        (["--tune-seconds", "-1"], "compare: argument --tune-seconds: must be a number of at least 0, got '-1'\n"),
        (["--plots", "out"], "compare: --plots draws the sweep: add --sweep\n"),
    ],
)  # fmt: skip
def test_bad_arguments(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        compare.main(argv)
    assert stop.value.code == 2
    assert capsys.readouterr().err == message


@pytest.mark.parametrize("where", ["--json", "--plots"])
def test_an_unwritable_directory_is_refused_before_anything_runs(
    where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    target = tmp_path / "file" / "below"
    given = ["--json", str(target / "out.json")] if where == "--json" else ["--sweep", "--plots", str(target)]
    assert compare.main([*SMALL, *given]) == 2
    out, err = capsys.readouterr()
    assert err == f"compare: cannot write to {target}: Not a directory. Choose another folder\n"
    assert out == ""


def test_a_folder_is_no_json_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main([*SMALL, "--json", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("compare: ")
    assert str(tmp_path) in err
    assert out == "", "known before the case runs"


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(importlib.import_module("benchmarks.cases.tiara"), "package_dir", lambda: None)
    assert compare.main(["--case", "tiara"]) == 2
    assert capsys.readouterr().err == (
        "compare: case 'tiara' needs the tiara package (103 MB): pip install --no-deps -r benchmarks/models/requirements.txt\n"
    )


def test_bad_options_of_a_case(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main(["--case", "wide", "--width", "8", "--depth", "2"]) == 2
    assert capsys.readouterr().err == "compare: --width must be >= 32 and --depth >= 1, got 8 and 2\n"


def test_a_seed_that_is_too_large(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = compare.main([*SMALL, "--seed", str(2**70)])
    except SystemExit as stop:
        code = int(str(stop.code))
    assert code == 2
    assert str(2**70) in capsys.readouterr().err


# ----------------------------------------------------------------------------------------------- whole files or none


@pytest.mark.usefixtures("full_disk")
def test_no_half_written_json(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out.json").write_text("old", encoding="utf-8")
    monkeypatch.setattr(compare, "run_case", lambda *args: [])
    assert compare.main([*SMALL, "--json", str(tmp_path / "out.json")]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert {p.name: p.read_text(encoding="utf-8") for p in tmp_path.iterdir()} == {"out.json": "old"}


@pytest.mark.usefixtures("full_disk")
def test_no_half_written_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main([*SMALL, "--sweep", "--plots", str(tmp_path)]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
