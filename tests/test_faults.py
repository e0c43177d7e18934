"""Faults from outside: a full disk, a killed process, Ctrl-C, a data loader that fails. Nothing of the caller's is lost."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dendrofx
from dendrofx import Options
from tests.made import made
from tests.models import Residual
from tests.property.snapshot import changes, snapshot
from tests.recorded import LOW, rows
from tests.stop import Stop

ASKED: dict[str, Any] = {
    "light": LOW,
    "budget": 0.3,
    "batch_sizes": [32],
    "options": Options(tune_seconds=0.5, decide=False),
}


def model() -> nn.Module:
    """With a hook, gradients, and a part in training mode: all that could be left otherwise."""
    torch.manual_seed(0)
    made_of = Residual(64, 256).eval()
    made_of.fc1.register_forward_hook(lambda module, given, out: out + 1)
    made_of.stem.weight.requires_grad_(False)
    return made_of


def batches() -> list[Tensor]:
    return [rows(40, i) for i in range(8)]


def settings() -> tuple[object, ...]:
    """What is set for the whole thread or process."""
    return (
        torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype(), torch.get_num_threads(),
        torch.is_autocast_enabled("cpu"), sys.getprofile(), torch.random.get_rng_state().sum().item(),
    )  # fmt: skip


def slow(value: Any) -> Any:
    """One that runs in the long form alone."""
    return pytest.param(value, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def length() -> int:
    """How many functions of dendrofx's a transform calls, about: timing makes some more or fewer."""
    given, data, counted = model(), batches(), Stop()
    counted.during(lambda: dendrofx.transform(given, calibration=data, **ASKED))
    assert counted.calls > 1000
    return counted.calls


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, *(slow(i / 40) for i in range(1, 39) if i not in (4, 20, 36))])
def test_ctrl_c_at_any_moment_of_a_transform(share: float, length: int) -> None:
    given, data = model(), batches()
    before, kept, state = snapshot(given), [b.clone() for b in data], settings()
    stop = Stop(1 + int(share * length))
    found = stop.during(lambda: dendrofx.transform(given, calibration=data, **ASKED))
    assert stop.calls == stop.at
    if isinstance(found, KeyboardInterrupt):
        assert share < 0.05 or "while" in str(found)
    else:
        assert "interrupted (Ctrl-C)" in str(found.plan)
        assert torch.isfinite(found(data[0])).all()
    assert changes(before, snapshot(given)) == []
    assert all(map(torch.equal, kept, data))
    assert settings() == state


@pytest.mark.parametrize(
    "error", [OSError("the share is gone"), KeyboardInterrupt(), RuntimeError("worker died")], ids=repr
)
def test_a_data_loader_that_fails_half_way(error: BaseException) -> None:
    given = model()
    before, state = snapshot(given), settings()

    def loader() -> Iterator[Tensor]:
        yield from batches()[:3]
        raise error

    with pytest.raises(type(error)) as raised:
        dendrofx.transform(given, calibration=loader(), **ASKED)
    assert raised.value is error
    assert "while the model was captured" in str(error) or error.__notes__ == ["while calibration batch 3 was read"]
    assert changes(before, snapshot(given)) == []
    assert settings() == state


# What a process does in which it is killed, or ends: the module is there, `path` has an older file.
START = """
import os, pathlib, resource, sys, torch, dendrofx
from tests.models import Residual
from torch import nn

def wait(*given, **named):
    print("here", flush=True)
    sys.stdin.read()

path, model = sys.argv[1], nn.Linear(64, 64).eval()
"""
SAVES: dict[str, str] = {
    "before it takes the old one's place": "pathlib.Path.replace = wait",
    "before the bytes reach the disk": "os.fsync = wait",
    "before it is written": "pathlib.Path.open = wait",
}


def started(code: str, *arguments: str, **more: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", START + code, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **more)


def killed(process: subprocess.Popen[str]) -> None:
    """Kill a process as soon as it says where it is."""
    assert process.stdout is not None
    with process:
        try:
            assert process.stdout.readline() == "here\n"
        finally:
            process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def saved(folder: Path) -> tuple[Path, bytes]:
    """An older file."""
    dendrofx.save(made("nothing-routed").module, folder / "model.pt")
    return folder / "model.pt", (folder / "model.pt").read_bytes()


@pytest.mark.parametrize("moment", ["before it takes the old one's place", *map(slow, list(SAVES)[1:])])
def test_a_save_that_is_killed_leaves_the_old_file(moment: str, tmp_path: Path) -> None:
    path, old = saved(tmp_path)
    killed(started(f"{SAVES[moment]}\ndendrofx.save(model, path)", str(path)))
    assert path.read_bytes() == old
    assert all(p == path or (p.name.startswith(".") and p.suffix == ".part") for p in tmp_path.iterdir())
    assert dendrofx.load(path).plan == made("nothing-routed").plan
    dendrofx.save(nn.Linear(64, 64).eval(), path)  # what was left behind is in nobody's way
    assert dendrofx.load(path).plan is None


def test_a_file_that_grows_too_large_leaves_the_old_one(tmp_path: Path) -> None:
    path, old = saved(tmp_path)
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\ntry:\n    dendrofx.save(model, path)\nexcept OSError as e:\n"
    with started(f"{limit}    print(e)", str(path)) as process:
        said, _ = process.communicate()
    assert said == f"[Errno 27] File too large while writing: '{path}'\n"
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == {path: old}
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 4096


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as room:
        room.setattr(os, "fsync", lambda descriptor: None)
        path, old = saved(tmp_path)
    with pytest.raises(OSError, match="No space left on device while writing"):
        dendrofx.save(made("residual").module, path)
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == {path: old}


@pytest.mark.slow
def test_a_transform_that_is_killed_leaves_nothing_behind(tmp_path: Path) -> None:
    code = """
import dendrofx.search.decide_blocks as decide
decide.search = wait
module = __import__("importlib").import_module("dendrofx.transform")
module.finish = wait
dendrofx.transform(Residual(64, 256).eval(), calibration=[torch.randn(400, 64)], light=dendrofx.LowRank(8))
"""
    path, old = saved(tmp_path)
    here = {**os.environ, "TMPDIR": str(tmp_path)}
    killed(started(code, str(path), env=here))
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == {path: old}
