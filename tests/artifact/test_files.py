"""Saved files read back: called as the model was, and refused by name where they are not what was saved."""

import dataclasses
import json
import platform
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dendrofx
from dendrofx import ArtifactError, InputError
from dendrofx.artifact.archive import INPUTS, PLAN, VERSIONS
from dendrofx.version import VERSION
from tests.made import made


@dataclasses.dataclass
class Out:
    hidden: Tensor
    pooled: Tensor
    note: str = "kept"


class Named(nn.Module):
    """Tensors in a dict and by keyword, a flag, a default that is no plain value, and a class of its own out."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, batch: dict[str, Tensor], scale: float = 2.0, dtype: Any = torch.float32, **kwargs: Any) -> Out:
        hidden = self.fc(batch["x"].to(dtype)) * scale + kwargs["shift"]
        return Out(hidden, hidden.mean(1))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model.pt"
    dendrofx.save(made("cascade").module, path)
    return path


def test_it_comes_back_with_its_plan_certificate_versions_and_inputs(saved: Path) -> None:
    module, x = made("cascade").module, made("cascade").rows
    loaded = dendrofx.load(saved)
    assert torch.equal(loaded(x), module(x))
    assert torch.equal(loaded(input=x), module(input=x))
    assert loaded.plan == module.plan
    assert loaded.certificate == dendrofx.certificate(saved)
    wrote = {"format": "1", "dendrofx": VERSION, "torch": torch.__version__, "python": platform.python_version()}
    assert loaded.versions == wrote
    assert [str(i) for i in loaded.inputs] == ["input: float32[N, 64]"]
    with pytest.raises(InputError, match="was captured with the inputs input"):
        loaded(input=None)


def test_axes_that_vary_are_said(tmp_path: Path) -> None:
    dendrofx.save(made("padded").module, tmp_path / "m.pt")
    loaded = dendrofx.load(tmp_path / "m.pt")
    assert [str(i) for i in loaded.inputs] == ["x: float32[N, T, 64]", "mask: int64[N, T]"]
    assert loaded.certificate is None
    given = made("padded").rows
    torch.testing.assert_close(loaded(**given), made("padded").module(**given))


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, model = tmp_path_factory.mktemp("named") / "model.pt", Named().eval()
    given = {"batch": {"x": torch.ones(4, 8)}, "shift": torch.ones(1, 8), "scale": 3.0}
    dendrofx.save(dendrofx.transform(model, given, options=dendrofx.Options(tune_seconds=0)), path)
    return path


def test_it_is_called_and_returns_as_the_model(named: Path) -> None:
    loaded = dendrofx.load(named)
    out = loaded({"x": torch.ones(3, 8)}, scale=3.0, shift=torch.zeros(1, 8))
    assert isinstance(out, Out)
    assert (out.note, out.pooled.shape) == ("kept", (3,))
    assert loaded.output_class == f"{__name__}:Out"
    with pytest.raises(InputError, match=r"cannot leave out scale, which is 2\.0 then"):
        loaded({"x": torch.ones(3, 8)}, shift=torch.zeros(1, 8))


def test_a_class_that_is_not_imported_is_not_imported_for_a_file(named: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, __name__)
    with pytest.warns(UserWarning, match=f"Import {__name__} before"):
        loaded = dendrofx.load(named)
    assert __name__ not in sys.modules
    out = loaded({"x": torch.ones(3, 8)}, scale=3.0, shift=torch.zeros(1, 8))
    assert (type(out), out["note"]) == (dict, "kept")


def rewritten(path: Path, target: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as made:
        for name in source.namelist():
            if (record := change(name, source.read(name))) is not None:
                made.writestr(name, record)
    return target


@pytest.mark.parametrize("part", [PLAN, INPUTS, "/data/1", "/code/", "byteorder", "data.pkl", "constants.pkl"])
def test_an_edited_file_is_refused(part: str, saved: Path, tmp_path: Path) -> None:
    path = rewritten(saved, tmp_path / "m.pt", lambda name, data: data + b" " if part in name else data)
    with pytest.raises(ArtifactError, match="was changed since it was written"):
        dendrofx.load(path)


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


def test_a_record_that_is_gone_is_refused(saved: Path, tmp_path: Path) -> None:
    for gone, message in ((PLAN, "was changed since"), (INPUTS, "was changed since"), (VERSIONS, "by an older one")):
        path = rewritten(saved, tmp_path / "m.pt", lambda name, data, gone=gone: None if gone in name else data)  # type: ignore[misc]
        with pytest.raises(ArtifactError, match=message):
            dendrofx.load(path)


def test_another_version_is_refused_by_name(saved: Path, tmp_path: Path) -> None:
    def older(name: str, data: bytes) -> bytes:
        return json.dumps({**json.loads(data), "dendrofx": "0.4.9"}).encode() if VERSIONS in name else data

    with pytest.raises(ArtifactError, match=f"another version: dendrofx 0.4.9 there, {VERSION} here"):
        dendrofx.load(rewritten(saved, tmp_path / "m.pt", older))


@pytest.mark.parametrize("kept", [None, 0, 1, 100, 5000, -1])
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


@pytest.mark.slow
def test_torch_alone_runs_it(saved: Path) -> None:
    code = (
        f"import sys, torch; m = torch.jit.load({str(saved)!r}); print(tuple(m(torch.ones(3, 64)).shape));"
        "assert not [n for n in sys.modules if n.startswith('dendrofx')]"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=saved.parent)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("(3, ")
