"""The README's code runs, its commands exist, and its test command is the one that CI calls."""

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

import dendrofx

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


NEEDS = "<!-- needs transformers -->\n"
PYTHON = re.compile(rf"({NEEDS})?```python\n(.*?)```", re.DOTALL)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def run(codes: Iterable[str], **names: object) -> None:
    for code in codes:
        exec(compile(code, "README.md", "exec"), names)


@pytest.mark.slow
def test_python_blocks_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run(code for needs, code in PYTHON.findall(README) if not needs)
    assert "0..2 (256 -> 2048 -> 10): " in capsys.readouterr().out
    assert (tmp_path / "model.pt").stat().st_size > 0
    loaded = torch.jit.load(tmp_path / "model.pt")
    assert loaded(torch.randn(3, 256)).shape == (3, 10)


@pytest.mark.real("transformers")
def test_the_blocks_that_need_transformers_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    codes = [code for needs, code in PYTHON.findall(README) if needs]
    assert codes
    run(codes, torch=torch, dendrofx=dendrofx)


def test_setup_commands_use_the_constraints_file() -> None:
    for command in blocks("bash"):
        assert "pip install -c constraints.txt -e" in command


def test_ci_finds_the_test_command() -> None:
    script = r"sed -n '/<!-- test command -->/,/^```$/p' README.md | sed '1,2d;$d'"
    assert script in (ROOT / ".ci" / "run").read_text(encoding="utf-8").replace("$(", "").replace(")\n", "\n")
    found = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "python -m pytest" in found
    assert found.strip() == blocks("bash")[1].strip()


@pytest.mark.parametrize(("command", "options"), [
    ("compare", {"--case", "--batch", "--threads", "--max-deviation", "--seed"}),
    ("parts", {"--case", "--batch", "--threads", "--max-deviation", "--seed"}),
    ("footprint", {"--case", "--batch", "--budgets", "--seed", "--json"}),
    ("coverage", {"--case", "--draws", "--json"}),
])  # fmt: skip
def test_documented_commands_have_help_and_load_no_torch_for_it(command: str, options: set[str]) -> None:
    if command == "compare":
        usage = README[README.index("python -m benchmarks.compare [") :].partition("\n\n")[0]
        options = options | set(re.findall(r"--[a-z-]+", usage))
    code = f"""
import runpy, sys
sys.argv = ["command", "--help"]
try:
    runpy.run_module("benchmarks.{command}", run_name="__main__")
except SystemExit as stop:
    assert not stop.code and "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert options <= set(re.findall(r"--[a-z-]+", done.stdout))


def test_every_layout_folder_exists() -> None:
    table = README[README.index("## Layout") : README.index("## Limits")]
    for name in re.findall(r"`([a-z_/]+/)`", table):
        assert (ROOT / name).is_dir() or (ROOT / "dendrofx" / name).is_dir(), name
