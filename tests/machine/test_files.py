"""Files are there whole or not at all, whatever stands at their path, and however many write there."""

import os
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import dendrofx
from dendrofx import InputError, Plan
from dendrofx.machine.files import scratch, write_whole
from tests.made import made

Saver = Callable[[Any], None]
SAVERS: dict[str, Saver] = {
    "a plan": Plan([], 0.1).save,
    "a module": lambda path: dendrofx.save(nn.Linear(40, 40).eval(), path),
    "a certified module": lambda path: dendrofx.save(made("cascade").module, path),
}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 kB: less than a scripted module, or a plan, takes with what is already there."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def old_and_full(folder: Path) -> dict[str, bytes]:
    """An older file, and another that leaves no room."""
    (folder / "out").write_bytes(b"old")
    with pytest.raises(OSError, match="No space left"):
        (folder / "rest").write_bytes(b"0" * 100_000)
    return contents(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize("what", SAVERS)
def test_a_full_disk_leaves_what_was_there(what: str, small_disk: Path) -> None:
    before = old_and_full(small_disk)
    with pytest.raises(OSError, match=rf"No space left on device while writing: '{small_disk}/out'"):
        SAVERS[what](small_disk / "out")
    assert contents(small_disk) == before


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize("what", SAVERS)
def test_bytes_that_never_reach_the_disk_leave_what_was_there(what: str, tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"old")
    with pytest.raises(OSError, match=rf"No space left on device while writing: '{tmp_path}/out'"):
        SAVERS[what](tmp_path / "out")
    assert contents(tmp_path) == {"out": b"old"}


def test_a_certified_module_is_never_there_without_its_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, replace = [], Path.replace

    def looked_at(part: Path, target: Path) -> Path:
        seen.append(dendrofx.certificate(part).n)
        return replace(part, target)

    monkeypatch.setattr(Path, "replace", looked_at)
    SAVERS["a certified module"](tmp_path / "out")
    assert len(seen) == 1


def test_several_threads_save_to_one_path(tmp_path: Path) -> None:
    texts = [str(i) * 100_000 for i in range(8)]
    barrier = threading.Barrier(len(texts))

    def save(text: str) -> None:
        barrier.wait(10)
        for _ in range(5):
            write_whole(tmp_path / "out", text)

    with ThreadPoolExecutor(len(texts)) as pool:
        list(pool.map(save, texts))
    (text,) = contents(tmp_path).values()
    assert text.decode() in texts


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_what_it_points_to_is_written(there: bool, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    if there:
        (tmp_path / "far" / "model.pt").write_text("old")
    (tmp_path / "out").symlink_to(Path("far") / "model.pt")
    write_whole(tmp_path / "out", "new")
    assert (tmp_path / "out").is_symlink()
    assert contents(tmp_path / "far") == {"model.pt": b"new"}


def test_an_old_file_keeps_its_permissions(tmp_path: Path) -> None:
    write_whole(tmp_path / "out", "first")
    usual = stat.S_IMODE((tmp_path / "out").stat().st_mode)
    (tmp_path / "plain").touch()
    assert usual == stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    (tmp_path / "out").chmod(0o640)
    write_whole(tmp_path / "out", "second")
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o640


def test_devices_and_pipes_are_written_into(tmp_path: Path) -> None:
    for what in SAVERS.values():
        what("/dev/null")
        assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    with pytest.raises(OSError, match="No space left on device while writing: '/dev/full'"):
        write_whole("/dev/full", "x")
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit((tmp_path / "pipe").read_bytes)
        write_whole(tmp_path / "pipe", "through")
        assert read.result(10) == b"through"
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "cannot write to '': name a file, such as 'model.pt'"),
        ("a\0b", "cannot write to 'a\\x00b': name a file, such as 'model.pt'"),
        (None, "a path is a string or a pathlib.Path, got None"),
        (".", "cannot write to .: it is a folder. Name a file"),
        ("new/", "cannot write to new/: it is a folder. Name a file"),
        ("none/out", "cannot write to none/out: there is no folder {}/none. Make it first"),
        ("loop", "cannot write to loop: its links lead in a circle"),
    ],
)
@pytest.mark.parametrize("what", ["a plan", "a module"])
def test_paths_that_name_no_file(
    what: str, name: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError) as error:
        SAVERS[what](name)
    assert str(error.value) == message.format(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["loop"]


def test_what_is_frozen_needs_no_room_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/nowhere")
    model = nn.Linear(4, 4).eval()
    with scratch() as path:
        torch.jit.save(dendrofx.script(model), path)
        assert torch.equal(torch.jit.load(path).weight, model.weight)
    assert not Path(path).exists()
    assert torch.equal(dendrofx.script(model, freeze=True)(torch.ones(1, 4)), model(torch.ones(1, 4)))
