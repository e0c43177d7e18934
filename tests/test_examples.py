"""The scripts of examples/ run as they are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.parametrize("name", [
    "digits", pytest.param("own_gate", marks=pytest.mark.nightly),
    pytest.param("minilm", marks=[pytest.mark.real(), pytest.mark.nightly]),
    pytest.param("scale_out", marks=[pytest.mark.real("ray"), pytest.mark.nightly]),
])  # fmt: skip
def test_the_examples_run_as_they_are(name: str, tmp_path: Path) -> None:
    file = ROOT / "examples" / f"{name}.py"
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 60
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(file)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = {"digits": "wrote digits.pt", "own_gate": "ran the original", "minilm": "live; they differ"}
    assert {**said, "scale_out": "ray, workers=2: "}[name] in done.stdout
