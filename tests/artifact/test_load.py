"""A saved module, loaded again: it computes the same, holds its plan, and a file that is none is refused by name."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import dendrofx
from dendrofx import ArtifactError, CertificateError
from tests.made import made

PLAN, VERSIONS, SHOWN = (f"dendrofx_{name}.json" for name in ("plan", "versions", "certificate"))
Change = Callable[[bytes], bytes | None]


def rewritten(path: Path, target: Path, record: str, change: Change) -> Path:
    """Write a file again with one of its records changed, or left out."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for item in old.infolist():
            data: bytes | None = old.read(item.filename)
            if item.filename.endswith(record):
                data = change(data or b"")
            if data is not None:
                new.writestr(item.filename, data)
    return target


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "certified.pt"
    dendrofx.save(made("budget").module, path)
    return path


@pytest.mark.parametrize("kind", ["residual", "no-gate", "cascade", "budget", "padded", "nothing-routed"])
def test_it_is_what_was_saved(kind: str, tmp_path: Path) -> None:
    source = made(kind)
    dendrofx.save(source.module, tmp_path / "m.pt")
    loaded = dendrofx.load(tmp_path / "m.pt")
    given = source.rows if isinstance(source.rows, dict) else {}
    rows = () if given else (source.rows,)
    assert torch.equal(loaded(*rows, **given), source.module(*rows, **given))
    assert loaded.plan == source.plan
    assert loaded.certificate == (None if source.plan.certificate is None else loaded.certificate)
    assert (loaded.certificate is None) is (source.plan.certificate is None)
    assert loaded.versions["dendrofx"] == dendrofx.__version__
    assert [i.name for i in loaded.inputs]
    assert source.plan.summary() in repr(loaded)


def test_torch_alone_loads_it(certified: Path) -> None:
    rows = made("budget").rows
    assert torch.equal(torch.jit.load(str(certified))(rows), made("budget").module(rows))


def other_version(data: bytes) -> bytes:
    return json.dumps({**json.loads(data), "dendrofx": "0.1.0"}).encode()


def other_budget(data: bytes) -> bytes:
    return json.dumps({**json.loads(data), "max_deviation": 0.5}).encode()


CHANGED: list[tuple[str, Change, str]] = [
    (VERSIONS, other_version, r"was written by another version: dendrofx 0\.1\.0 there, "),
    (VERSIONS, lambda data: None, r"was not written by dendrofx\.save"),
    (PLAN, other_budget, "was changed since it was written"),
    (PLAN, lambda data: b"{", "was changed since it was written"),
    (SHOWN, lambda data: None, "was changed since it was written"),
]


@pytest.mark.parametrize(("record", "change", "message"), CHANGED)
def test_a_file_that_was_changed(record: str, change: Change, message: str, certified: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=message):
        dendrofx.load(rewritten(certified, tmp_path / "m.pt", record, change))


def test_a_plan_is_under_the_seal_of_its_certificate(certified: Path, tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match="was changed since it was certified"):
        dendrofx.certificate(rewritten(certified, tmp_path / "m.pt", PLAN, other_budget))


@pytest.mark.parametrize("content", [None, b"", b"no archive", "half"])
def test_what_is_no_saved_module(content: Any, certified: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    if content is not None:
        whole = certified.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    with pytest.raises(ArtifactError, match="cannot read "):
        dendrofx.load(path)
