"""Write a transformed module with its plan and certificate inside, and read that certificate and check it against the file.

`save` writes them as JSON among the extra files of the TorchScript archive, with versions and a description of the inputs; the
certificate with a digest of everything else. A file whose weights, thresholds, code or plan were changed afterwards no longer
verifies. It is no signature: whoever can write the file can write another.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dendrofx.errors import CertificateError
from dendrofx.graph.show import first_line
from dendrofx.guarantee.certificate import Certificate
from dendrofx.lowering.script import script, script_bytes
from dendrofx.machine.files import check_target, write_whole
from dendrofx.values.drop_in import call_form
from dendrofx.values.meta import SHAPE
from dendrofx.version import VERSION

EXTRA, PLAN_FILE, ABOUT_FILE = "dendrofx_certificate.json", "dendrofx_plan.json", "dendrofx_about.json"
# Records of an archive that say nothing about the module, or differ from write to write.
_NOT_THE_MODULE = (".debug_pkl", "serialization_id", "extra/", "byteorder")


def save(module: nn.Module, path: str | Path, *, freeze: bool = False) -> None:
    """Script a transformed module and write it, its plan and certificate inside.

    Args:
        module: what `transform` returned; without a certificate it is written all the same.
        path: for `torch.jit.load`, which needs torch and nothing else; `dendrofx.load` reads the plan too.
        freeze: see `script`.

    Raises:
        CertificateError: the module was changed since it was certified, or `path` names no file.
        InputError: see `script`.
        OSError: it cannot be written, on a full disk say: an older file at `path` is as it was.

    Example:
        >>> dendrofx.save(routed, "model.pt")
        >>> print(dendrofx.certificate("model.pt"))
    """
    check_target(path, CertificateError)
    made: Certificate | None = getattr(getattr(module, "plan", None), "certificate", None)
    if made is not None:
        made.verify(module)
    scripted = script(module, freeze=freeze)
    extra = _described(module)
    data = script_bytes(scripted, extra)
    if made is not None:
        sealed = replace(made, archive=_digest(_records(data, path), made))
        data = script_bytes(scripted, {**extra, EXTRA: json.dumps(sealed.to_json())})
        _verified(_records(data, path), path)  # what is written next must verify
    write_whole(path, data, CertificateError)


def _described(module: nn.Module) -> dict[str, str]:
    """Return the extra files that say what a module is: its plan where it has one, versions, and the inputs of its graph."""
    plan, graph, form = getattr(module, "plan", None), getattr(module, "graph", None), call_form(module)
    inputs = [] if graph is None else [n for n in graph.nodes if n.op == "placeholder"]
    about = {
        "dendrofx": VERSION,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "model": type(module).__name__ if form is None else form.model,
        "inputs": [{"name": str(n.target), "is": str(n.meta.get(SHAPE, ""))} for n in inputs],
    }
    files = {ABOUT_FILE: json.dumps(about)}
    return files if plan is None else {**files, PLAN_FILE: json.dumps(plan.to_json(), allow_nan=False)}


def certificate(path: str | Path) -> Certificate:
    """Read the certificate of a saved module, and check that it is of this file.

    Raises:
        CertificateError: no such file, no certificate in it, or the file was changed since it was written.
    """
    try:
        data = Path(path).read_bytes()
    except (OSError, TypeError, ValueError) as error:
        raise CertificateError(f"cannot read {path}: {error}") from error
    return _verified(_records(data, path), path)


def archive_digest(path: Path, shown: Certificate) -> str:
    """Return SHA-256 over an archive's records (code, constants, weights, thresholds) and over the certificate's figures."""
    return _digest(_records(path.read_bytes(), path), shown)


def _records(data: bytes, path: str | Path) -> dict[str, bytes]:
    """Read an archive's records by name: all that say what the module is, and the certificate.

    Raises:
        CertificateError: it is no archive, or a damaged one. The reader raises a dozen kinds of errors for these.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [n for n in archive.namelist() if _counts(n.partition("/")[2])]
            if len(set(names)) < len(names):
                raise ValueError("a record is there twice")
            return {name.partition("/")[2]: archive.read(name) for name in names}
    except Exception as error:
        raise CertificateError(f"cannot read {path}: it is damaged, or no saved module: {first_line(error)}") from error


def _counts(name: str) -> bool:
    return name.startswith("extra/dendrofx_") or not (
        name.startswith(_NOT_THE_MODULE) or name.endswith(_NOT_THE_MODULE)
    )


def _verified(records: Mapping[str, bytes], path: str | Path) -> Certificate:
    """Return the certificate among an archive's records, verified.

    Raises:
        CertificateError: there is none, or it is of other records, or does not follow from its figures.
    """
    if (text := records.get(f"extra/{EXTRA}")) is None:
        raise CertificateError(
            f"{path} holds no certificate: write modules with dendrofx.save, transformed with budget="
        )
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CertificateError(f"the certificate in {path} cannot be read: {error}") from error
    _check_version(value, path)
    try:
        found = Certificate.from_json(value)
    except (ValueError, RecursionError) as error:
        raise CertificateError(f"the certificate in {path} cannot be read: {error}") from error
    if (digest := _digest(records, found)) != found.archive:
        raise CertificateError(
            f"{path} was changed since it was certified: digest {digest}, the certificate is for {found.archive}"
        )
    try:
        found.check_figures()
    except CertificateError as error:
        raise CertificateError(f"{path}: {error}") from error
    return found


def _check_version(value: Any, path: str | Path) -> None:  # noqa: ANN401
    """Refuse a certificate of another version by name: its fields and digests may mean something else there."""
    there = value.get("dendrofx", VERSION) if isinstance(value, dict) else VERSION
    if there != VERSION:
        raise CertificateError(
            f"the certificate in {path} was made by another version: dendrofx {there} there, {VERSION} here. Read it with that"
            " one, or transform again"
        )


def _digest(records: Mapping[str, bytes], shown: Certificate) -> str:
    digest = hashlib.sha256(json.dumps(replace(shown, archive="").to_json(), sort_keys=True).encode())
    for name, record in sorted(records.items()):
        if name != f"extra/{EXTRA}":
            digest.update(f"{name}:{len(record)}:".encode())
            digest.update(record)
    return digest.hexdigest()
