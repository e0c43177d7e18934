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
from dendrofx.artifact.archive import PLAN
from dendrofx.command.group import group
from dendrofx.command.main import main
from dendrofx.command.verify import verify
from tests.archives import rewritten
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
    assert ran.stdout.count("\n  Example") == 6
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


def test_another_format(rows: Path, tmp_path: Path) -> None:
    out, answers = tmp_path / "m.pt2", tmp_path / "a.npy"
    asked = ["--calibration", rows, "--budget", "0.05", "--tune-seconds", 0, "--format", "pt2", "-o", out]
    ran = call("transform", MODEL, *asked)
    assert ran.exit_code == 0, ran.output
    assert f"Wrote {out}: dendrofx.load runs it" in ran.output
    assert call("inspect", out).exit_code == 0
    ran = call("run", out, rows, "-o", answers, "--batch", 100)
    assert (ran.exit_code, ran.output) == (0, f"Wrote {answers}: output {list(np.load(answers).shape)}\n")


def test_inspect_and_verify(routed: Path) -> None:
    shown = call("inspect", routed)
    assert shown.exit_code == 0
    assert "  takes    input: float32[N, 64]\n" in shown.output
    assert shown.output.count("certified: flip at most") == 1
    assert max(map(len, shown.output.splitlines()[1:])) <= 100
    value = json.loads(call("inspect", routed, "--json").output)
    assert value["certificate"]["metric"] == "flip"
    assert value["plan"] == made("cascade").plan.to_json()
    verified = call("verify", routed, "--json")
    assert (verified.exit_code, json.loads(verified.output)) == (0, value["certificate"])
    assert max(map(len, call("verify", routed).output.splitlines())) <= 100


def test_a_script_tells_changed_uncertified_and_missing_files_apart(routed: Path, tmp_path: Path) -> None:
    changed = rewritten(routed, tmp_path / "changed.pt", PLAN, lambda data: data + b" ")
    dendrofx.save(made("padded").module, plain := tmp_path / "plain.pt")
    said = {changed: "was changed since it was written", plain: "holds no certificate: transform with a budget"}
    for file, message in said.items():
        ran = call("verify", file)
        assert (ran.exit_code, message in " ".join(ran.output.split())) == (1, True), ran.output
    assert [call("inspect", file).exit_code for file in (plain, changed)] == [0, 2]
    assert call("verify", tmp_path / "nothing.pt").exit_code == 2


@pytest.mark.parametrize("command", ["compare", "transform", "report"])
def test_data_by_other_names_is_refused_before_the_work(command: str, routed: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", wrong=np.ones((60, 64), dtype=np.float32))
    data = str(tmp_path / "x.npz")
    asked = {
        "compare": [MODEL, "--data", data, "-o", tmp_path / "out"],
        "transform": [MODEL, "--calibration", data, "-o", tmp_path / "m.pt"],
        "report": [routed, "--model", MODEL, "--calibration", data, "--data", data, "-o", tmp_path / "r.html"],
    }
    ran = call(command, *asked[command])
    assert ran.exit_code == 2, ran.output
    assert "holds wrong; Sequential takes input: name the data as the arguments" in " ".join(ran.output.split())


def test_a_budget_that_cannot_be_shown_writes_nothing(rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.pt"
    ran = call(
        "transform", MODEL, "--calibration", rows, "--budget", "deviation:0.0001:0.999", "--tune-seconds", 0, "-o", out
    )
    assert (ran.exit_code, out.exists()) == (1, False), ran.output
    assert "could not be shown" in ran.output


@pytest.mark.parametrize(("changes", "message"), [
    ({"model": "nowhere", "out": "m.onnx"}, 'm.onnx is no name for TorchScript: pass format="onnx"'),
    ({"model": "nowhere"}, "cannot read the model nowhere: there is nothing of that name"),
    ({"model": "tests.models:nothing"}, "has no attribute 'nothing'. A model is module:callable"),
    ({"model": "math:sqrt"}, "it raised TypeError: math.sqrt() takes exactly one argument (0 given)"),
    ({"model": "builtins:dict"}, "builtins:dict gives a dict, not a torch.nn.Module"),
    ({"model": "tests"}, "is a folder without config.json"),
    ({"data": "nowhere.npy"}, "there is no such file"),
    ({"data": "setup.py"}, "expected .npy, .npz, .pt, .safetensors, .parquet or .txt"),
    ({"data": "constraints.txt"}, "that needs a model's folder with a tokenizer"),
    ({"budget": "little"}, "a budget is a mean deviation, 0.01, or METRIC:LIMIT:CONFIDENCE"),
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


def test_the_package_runs_as_a_module() -> None:
    ran = subprocess.run([sys.executable, "-m", "dendrofx", "--help"], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout.splitlines()[0]) == (0, "Usage: dendrofx [OPTIONS] COMMAND [ARGS]..."), (
        ran.stderr
    )


def test_the_graph_of_a_file_is_that_of_its_module(routed: Path) -> None:
    graph = dendrofx.graph_text(made("cascade").module)
    assert call("inspect", routed, "--graph").output == f"{graph}\n"
    assert json.loads(call("inspect", routed, "--json").output)["graph"] == graph.splitlines()


def test_several_batch_sizes_are_asked_for_at_once(rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.pt"
    asked = ["--calibration", rows, "--tune-seconds", 0, "--json", "-o", out]
    ran = call("transform", "--batch", 1, 32, MODEL, *asked)
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout)["origin"]["batch_sizes"] == [1, 32]


@pytest.mark.parametrize(("array", "said"), [
    (np.ones((40, 64)), "a batch of the data is (float64[32, 64])"),
    (np.ones((40, 63), dtype=np.float32), "a batch of the data is (float32[32, 63])"),
])  # fmt: skip
def test_data_that_does_not_fit_a_file(array: Any, said: str, routed: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", array)
    ran = call("run", routed, tmp_path / "x.npy", "-o", tmp_path / "y.npy")
    message = " ".join(ran.output.split())
    assert ran.exit_code == 2, ran.output
    assert f"does not fit {routed}, which takes input: float32[N, 64]; {said}" in message
    assert "Save the data in the form that the file takes" in message


def test_an_error_of_our_own_has_a_code_of_its_own(routed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(file: Path, as_json: bool) -> None:
        raise KeyError(file)

    monkeypatch.setattr(verify, "callback", fails)
    assert call("verify", routed).exit_code == 3


def test_without_click_one_line_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "click", None)
    with pytest.raises(SystemExit, match="2"):
        main()
    assert capsys.readouterr().err == "dendrofx: the command needs click: pip install 'dendrofx[cli]'\n"
