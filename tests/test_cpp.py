"""The host in C++ builds against the installed torch, and answers on several threads as on one."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import dendrofx
from tests.made import made

SOURCE = Path(__file__).parent.parent / "examples" / "cpp"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (shutil.which("cmake") and shutil.which("g++")) and not os.environ.get("CI"):
        pytest.skip("needs cmake and g++")
    build = tmp_path_factory.mktemp("build")
    prefix = f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path}"
    for command in (["cmake", "-S", str(SOURCE), "-B", str(build), prefix], ["cmake", "--build", str(build)]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return build / "host"


@pytest.mark.slow
def test_it_answers_and_counts(host: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    dendrofx.save(made("mlp").module, path)
    asked = [str(host), str(path), "f32[N, 64]", "--threads", "3", "--calls", "60"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = 10 * sum((1, 3, 7, 32, 64, 256))
    assert any(line.split() == ["0..2", "rows", str(rows)] for line in done.stdout.splitlines())
    wrong = subprocess.run([*asked[:2], "f32[N, 63]"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "takes 64 features" in wrong.stderr
