"""The command, as a person calls it: from a model on disk to answers, and errors that say what to do."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

import dendrofx
from dendrofx.command.group import group
from dendrofx.command.main import _without_click
from tests.made import batches, made

MODEL = "tests.models:compressible"


def call(*arguments: Any) -> Result:
    return CliRunner().invoke(group, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.npy"
    np.save(path, torch.cat(batches()).numpy())
    return path


@pytest.fixture(scope="module")
def routed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("routed") / "routed.pt"
    dendrofx.save(made("cascade").module, path)
    return path


def test_help_loads_no_torch_and_says_the_exit_codes() -> None:
    code = """
import sys
from click.testing import CliRunner
from dendrofx.command.group import group
for name in [[], *[[name] for name in group.commands]]:
    ran = CliRunner().invoke(group, [*name, "--help"])
    assert ran.exit_code == 0, ran.output
    assert max(map(len, ran.output.splitlines())) <= 100
    print(ran.output)
assert not {"torch", "numpy", "scipy"} & set(sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    for said in ("Exit codes:", "  transform ", "  inspect ", "  verify ", "  run ", "module:callable"):
        assert said in ran.stdout


def test_from_a_model_to_answers(rows: Path, tmp_path: Path) -> None:
    out, answers = tmp_path / "m.pt", tmp_path / "a.npy"
    ran = call("transform", MODEL, "--calibration", rows, "--budget", "0.05", "--tune-seconds", 0, "-o", out)
    assert ran.exit_code == 0, ran.output
    assert f"Wrote {out}: torch.jit.load runs it" in ran.output
    ran = call("run", out, rows, "-o", answers, "--batch", 100)
    assert (ran.exit_code, ran.output) == (0, f"Wrote {answers}: output {list(np.load(answers).shape)}\n")
    batches = torch.from_numpy(np.load(rows)).split(100)
    expected = torch.cat([torch.jit.load(str(out))(b) for b in batches])
    torch.testing.assert_close(torch.from_numpy(np.load(answers)), expected)


def test_inspect_and_verify(routed: Path, tmp_path: Path) -> None:
    shown = call("inspect", routed)
    assert shown.exit_code == 0
    assert "  takes    input: float32[N, 64]\n" in shown.output
    assert max(map(len, shown.output.splitlines()[1:])) <= 100
    value = json.loads(call("inspect", routed, "--json").output)
    assert value["certificate"]["metric"] == "flip"
    assert value["plan"] == made("cascade").plan.to_json()
    verified = call("verify", routed, "--json")
    assert (verified.exit_code, json.loads(verified.output)) == (0, value["certificate"])
    changed = tmp_path / "m.pt"
    data = bytearray(routed.read_bytes())
    data[len(data) // 2] ^= 1
    changed.write_bytes(data)
    assert call("verify", changed).exit_code == 1
    assert call("inspect", changed).exit_code == 2


def test_a_budget_that_cannot_be_shown_writes_nothing(rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.pt"
    ran = call(
        "transform", MODEL, "--calibration", rows, "--budget", "deviation:0.0001:0.999", "--tune-seconds", 0, "-o", out
    )
    assert (ran.exit_code, out.exists()) == (1, False), ran.output
    assert "could not be shown" in ran.output


@pytest.mark.parametrize(("changes", "message"), [
    ({"model": "nowhere"}, "cannot read the model nowhere: there is nothing of that name"),
    ({"model": "tests.models:nothing"}, "has no attribute 'nothing'. A model is module:callable"),
    ({"model": "builtins:dict"}, "builtins:dict gives a dict, not a torch.nn.Module"),
    ({"model": "tests"}, "is a folder without config.json"),
    ({"data": "nowhere.npy"}, "there is no such file"),
    ({"data": "setup.py"}, "expected .npy, .npz, .pt, .safetensors, .parquet or .txt"),
    ({"data": "constraints.txt"}, "that needs a model's folder with a tokenizer"),
    ({"budget": "little"}, "--budget is a mean deviation, 0.01, or METRIC:LIMIT:CONFIDENCE"),
    ({"out": "nowhere/m.pt"}, "Make it first"),
])  # fmt: skip
def test_what_cannot_be_used(changes: dict[str, str], message: str, rows: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(Path(__file__).parent.parent.parent)
    given = {"model": MODEL, "data": str(rows), "budget": "0.01", "out": "m.pt", **changes}
    ran = call(
        "transform", given["model"], "--calibration", given["data"], "--budget", given["budget"], "-o", given["out"]
    )
    assert ran.exit_code == 2, ran.output
    assert message in " ".join(ran.output.split())


def test_without_click_one_line_says_what_to_install(capsys: pytest.CaptureFixture[str]) -> None:
    assert _without_click() == 2
    assert capsys.readouterr().err == "dendrofx: the command needs click: pip install 'dendrofx[cli]'\n"
