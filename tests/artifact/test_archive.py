"""Files that are not what was saved: damaged, edited, foreign or of another version. Each is refused by name."""

import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import dendrofx
from dendrofx import ArtifactError, CertificateError
from dendrofx.artifact.archive import CERTIFICATE, INPUTS, PLAN, VERSIONS
from dendrofx.version import VERSION
from tests.archives import Change, rewritten
from tests.made import made


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model.pt"
    dendrofx.save(made("cascade").module, path)
    return path


@pytest.mark.parametrize("part", [PLAN, INPUTS, "/data/1", "/code/", "byteorder", "data.pkl", "constants.pkl"])
def test_an_edited_file_is_refused(part: str, saved: Path, tmp_path: Path) -> None:
    path = rewritten(saved, tmp_path / "m.pt", part, lambda data: data + b" ")
    with pytest.raises(ArtifactError, match="was changed since it was written"):
        dendrofx.load(path)


def other_version(data: bytes) -> bytes:
    return json.dumps({**json.loads(data), "dendrofx": "0.4.9"}).encode()


def other_budget(data: bytes) -> bytes:
    return json.dumps({**json.loads(data), "max_deviation": 0.5}).encode()


def gone(data: bytes) -> None:
    return None


@pytest.mark.parametrize(("record", "change", "message"), [
    (PLAN, gone, "was changed since it was written"),
    (PLAN, other_budget, "was changed since it was written"),
    (INPUTS, gone, "was changed since it was written"),
    (CERTIFICATE, gone, "was changed since it was written"),
    (VERSIONS, gone, r"was not written by dendrofx\.save .* by an older one"),
    (VERSIONS, other_version, rf"another version: dendrofx 0\.4\.9 there, {VERSION} here"),
])  # fmt: skip
def test_a_record_that_is_gone_or_says_another_thing(
    record: str, change: Change, message: str, saved: Path, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match=message):
        dendrofx.load(rewritten(saved, tmp_path / "m.pt", record, change))


def test_a_plan_is_under_the_seal_of_its_certificate(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match="was changed since it was certified"):
        dendrofx.certificate(rewritten(saved, tmp_path / "m.pt", PLAN, other_budget))


def beside(path: Path, target: Path) -> bytes:
    """A file with its weights at zero in a first folder, and as they were in a second."""
    with zipfile.ZipFile(path) as source:
        old = [(name, source.read(name)) for name in source.namelist()]
    zeros = [(name, bytes(len(data)) if "/data/" in name else data) for name, data in old]
    with zipfile.ZipFile(target, "w") as made:
        for name, data in [*((f"other/{name.partition('/')[2]}", data) for name, data in zeros), *old]:
            made.writestr(name, data)
    return target.read_bytes()


def appended(path: Path, target: Path) -> bytes:
    """A file with its weights at zero, of which torch reads, and behind it the file as it was."""
    old = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as source:
        for item in source.infolist():
            if "/data/" in item.filename:
                name, more = struct.unpack_from("<HH", old, item.header_offset + 26)
                start = item.header_offset + 30 + name + more
                old[start : start + item.file_size] = bytes(item.file_size)
                zeros = struct.pack("<I", zlib.crc32(bytes(item.file_size)))
                old = old.replace(struct.pack("<I", item.CRC), zeros)
    return bytes(old) + path.read_bytes()


@pytest.mark.parametrize(
    ("change", "message"), [(beside, "in several folders"), (appended, "stands before the archive")]
)
def test_what_is_checked_is_what_torch_reads(
    change: Callable[[Path, Path], bytes], message: str, saved: Path, tmp_path: Path
) -> None:
    path = tmp_path / "m.pt"
    path.write_bytes(change(saved, path))
    assert not torch.jit.load(str(path))(made("cascade").rows).any()  # torch runs the zeros
    for read in (dendrofx.load, dendrofx.certificate):
        with pytest.raises(ArtifactError, match=message):
            read(path)


@pytest.mark.parametrize("kept", [None, 0, 1, 5000, -1])
def test_a_truncated_or_missing_file_is_refused(kept: int | None, saved: Path, tmp_path: Path) -> None:
    if kept is not None:
        (tmp_path / "m.pt").write_bytes(saved.read_bytes()[:kept])
    with pytest.raises(ArtifactError, match="cannot read"):
        dendrofx.load(tmp_path / "m.pt")


def test_foreign_files_are_refused_and_not_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    torch.save(Trap(), tmp_path / "pickle.pt")
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), str(tmp_path / "script.pt"))
    for name in ("pickle.pt", "script.pt"):
        with pytest.raises(ArtifactError, match=r"was not written by dendrofx\.save"):
            dendrofx.load(tmp_path / name)
    assert not (tmp_path / "sprung").exists()
