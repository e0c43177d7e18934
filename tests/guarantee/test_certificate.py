"""Certificates: what they hold, that they travel in the file, and that changes are noticed."""

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import dendrofx
from dendrofx import Certificate, CertificateError
from dendrofx.artifact.archive import CERTIFICATE as EXTRA
from dendrofx.artifact.certificate import archive_digest
from dendrofx.version import VERSION
from tests.made import made, unpickled


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    module, path = made("cascade").module, tmp_path_factory.mktemp("saved") / "model.pt"
    dendrofx.save(module, path)
    return module, path


@pytest.mark.parametrize("kind", ["budget", "cascade"])
@pytest.mark.parametrize("freeze", [False, True])
def test_a_saved_module_loads_without_dendrofx_and_verifies(kind: str, freeze: bool, tmp_path: Path) -> None:
    module, x = made(kind).module, made(kind).rows
    dendrofx.save(module, tmp_path / "m.pt", freeze=freeze)
    shown = dendrofx.certificate(tmp_path / "m.pt")
    assert shown.p_value == module.plan.certificate.p_value
    extra = {EXTRA: ""}
    loaded = torch.jit.load(tmp_path / "m.pt", _extra_files=extra)
    assert json.loads(extra[EXTRA])["metric"] == module.plan.certificate.metric
    assert torch.equal(loaded(x), module(x))


def test_its_figures_are_enough_to_recompute_it(saved: tuple[Any, Path]) -> None:
    module, _ = saved
    value = module.plan.certificate.to_json()
    assert {"metric", "alpha", "delta", "n", "losses", "p_value"} <= set(value)
    assert value["p_value"] == pytest.approx(dendrofx.guarantee.binomial_p(value["losses"], value["n"], value["alpha"]))
    assert "exchangeable" in value["assumption"]
    assert Certificate.from_json(value) == module.plan.certificate


def rewritten(path: Path, target: Path, change: Callable[[str, bytes], bytes]) -> Path:
    """The archive with records changed."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as made:
        for name in source.namelist():
            made.writestr(name, change(name, source.read(name)))
    return target


def flipped(part: str) -> Callable[[str, bytes], bytes]:
    """The last byte of every record whose name holds `part` is another."""
    return lambda name, data: data[:-1] + bytes([data[-1] ^ 1]) if part in name and data else data


@pytest.mark.parametrize("part", ["/data/1", "/data/", "/code/", "data.pkl"])
def test_a_file_that_was_changed_does_not_verify(part: str, saved: tuple[Any, Path], tmp_path: Path) -> None:
    path = rewritten(saved[1], tmp_path / "m.pt", flipped(part))
    with pytest.raises(CertificateError, match="was changed since it was certified"):
        dendrofx.certificate(path)


def test_every_threshold_is_under_the_digest(saved: tuple[Any, Path], tmp_path: Path) -> None:
    """A file of the same module with another tolerance, and the old certificate."""
    module, path = unpickled(saved[0]), saved[1]
    loaded = torch.jit.load(path)
    with torch.no_grad():
        dendrofx.tolerances(loaded)["model"].fill_(float("inf"))
    with zipfile.ZipFile(path) as archive:
        text = next(archive.read(n).decode() for n in archive.namelist() if n.endswith(EXTRA))
    torch.jit.save(loaded, str(tmp_path / "m.pt"), _extra_files={EXTRA: text})
    with pytest.raises(CertificateError, match="was changed since it was certified"):
        dendrofx.certificate(tmp_path / "m.pt")
    dendrofx.set_tolerances(module, {"model": 0.9})
    with pytest.raises(CertificateError, match="weights, thresholds or gates were changed since"):
        dendrofx.save(module, tmp_path / "n.pt")
    dendrofx.set_tolerances(module, module.plan.certificate.thresholds)
    dendrofx.save(module, tmp_path / "n.pt")


def test_figures_that_do_not_follow_are_refused(saved: tuple[Any, Path], tmp_path: Path) -> None:
    """Every figure is under the digest; and figures with a digest of their own must still follow from each other."""

    def changed(**figures: Any) -> Path:
        def change(name: str, data: bytes) -> bytes:
            return json.dumps({**json.loads(data), **figures}).encode() if name.endswith(EXTRA) else data

        return rewritten(saved[1], tmp_path / "m.pt", change)

    for figures in (
        {"n": 5000},
        {"metric": "cosine"},
        {"thresholds": {"model": 0.0}},
        {"easy_share": 0.1},
        {"output": 1},
    ):
        with pytest.raises(CertificateError, match="was changed since it was certified"):
            dendrofx.certificate(changed(**figures))
    for figures in ({"alpha": "x"}, {"losses": float("nan")}, {"thresholds": 3}):
        with pytest.raises(CertificateError, match="not a certificate"):
            dendrofx.certificate(changed(**figures))
    says = rf"made by another version: dendrofx 0\.4\.0 there, {re.escape(VERSION)} here\. Read it with that one, or transform"
    for figures in ({"dendrofx": "0.4.0"}, {"dendrofx": "0.4.0", "alpha": "x"}):
        with pytest.raises(CertificateError, match=says):
            dendrofx.certificate(changed(**figures))
    shown = Certificate.from_json({**saved[0].plan.certificate.to_json(), "n": 5000})
    with pytest.raises(CertificateError, match="does not follow from its figures"):
        dendrofx.certificate(changed(n=5000, archive=archive_digest(saved[1], shown)))


@pytest.mark.parametrize(("content", "message"), [
    (b"hello", "cannot read"), (None, "cannot read"), ("module", "holds no certificate"),
    *[(kept, "it is damaged, or no saved module") for kept in (0, 1, 100, 5000, -1)],
])  # fmt: skip
def test_files_without_one(content: Any, message: str, saved: tuple[Any, Path], tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    if content == "module":
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(path))
    elif content is not None:
        path.write_bytes(content if isinstance(content, bytes) else saved[1].read_bytes()[:content])
    with pytest.raises(CertificateError, match=message):
        dendrofx.certificate(path)


def test_a_file_with_any_bit_flipped_is_refused_in_words_or_is_read_the_same(
    saved: tuple[Any, Path], tmp_path: Path
) -> None:
    """Every kind of damage that an archive's reader has an error of its own for; some bits are never read."""
    data, path, shown = saved[1].read_bytes(), tmp_path / "m.pt", dendrofx.certificate(saved[1])
    step, messages = 8 * len(data) // 400 | 1, list[str]()
    for bit in range(0, 8 * len(data), step):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            assert dendrofx.certificate(path) == shown
        except CertificateError as error:
            messages.append(str(error))
    assert len(messages) > 200
    known = (f"cannot read {path}: ", f"{path} was changed since", f"{path} holds no cert")
    assert [m for m in messages if not m.startswith(known)] == []
