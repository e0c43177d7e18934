"""A saved module, loaded again: it computes the same, holds its plan, and a file that is none is refused by name."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import dendrofx
from dendrofx import CertificateError, PlanError
from tests.made import made

PLAN, ABOUT, SHOWN = (f"dendrofx_{name}.json" for name in ("plan", "about", "certificate"))
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
    assert loaded.about["dendrofx"] == dendrofx.__version__
    assert [i["name"] for i in loaded.about["inputs"]]
    assert source.plan.summary() in repr(loaded)


def test_torch_alone_loads_it(certified: Path) -> None:
    rows = made("budget").rows
    assert torch.equal(torch.jit.load(str(certified))(rows), made("budget").module(rows))


def other_version(data: bytes) -> bytes:
    return json.dumps({**json.loads(data), "dendrofx": "0.1.0"}).encode()


def other_budget(data: bytes) -> bytes:
    return json.dumps({**json.loads(data), "max_deviation": 0.5}).encode()


CHANGED: list[tuple[str, Change, type[Exception], str]] = [
    (ABOUT, other_version, PlanError, "was written by dendrofx 0.1.0; this is "),
    (ABOUT, lambda data: None, PlanError, "was written without dendrofx.save"),
    (PLAN, other_budget, CertificateError, "was changed since it was certified"),
    (PLAN, lambda data: b"{", PlanError, "is damaged: "),
    (PLAN, lambda data: b"[]", PlanError, "a description is a list"),
    (SHOWN, lambda data: None, CertificateError, "its plan was certified, and the certificate is gone"),
]


@pytest.mark.parametrize(("record", "change", "kind", "message"), CHANGED)
def test_a_file_that_was_changed(
    record: str, change: Change, kind: type[Exception], message: str, certified: Path, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=message):
        dendrofx.load(rewritten(certified, tmp_path / "m.pt", record, change))


@pytest.mark.parametrize("content", [None, b"", b"no archive", "half"])
def test_what_is_no_saved_module(content: Any, certified: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    if content is not None:
        whole = certified.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    with pytest.raises(PlanError, match=r"cannot load .*: it is missing, damaged or no saved module: "):
        dendrofx.load(path)
