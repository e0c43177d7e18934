"""The records of a TorchScript file by name, and digests over them.

A digest is no signature: it notices damage and edits, but whoever can write the file can write another.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

from dendrofx.errors import ArtifactError
from dendrofx.graph.show import first_line

CERTIFICATE = "dendrofx_certificate.json"
PLAN = "dendrofx_plan.json"
INPUTS = "dendrofx_inputs.json"
VERSIONS = "dendrofx_versions.json"  # the seal of all the others is in it
TORCHSCRIPT = "code/"  # where the records of its code are
ZIP = b"PK"  # what a file of any format but ONNX begins with
# Records that say nothing about the module, or differ from write to write.
NOT_THE_MODULE = (".debug_pkl", ".data/serialization_id", "extra/")


def content(path: str | Path, error: type[ArtifactError] = ArtifactError) -> bytes:
    """Return the bytes of a file; raise `error` where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except (OSError, TypeError, ValueError) as failed:
        raise error(f"cannot read {path}: {failed}") from failed


def records(data: bytes, path: str | Path, error: type[ArtifactError] = ArtifactError) -> dict[str, bytes]:
    """Return an archive's records by name, without its folder: all that say what the module is, and the extra files.

    Raises:
        ArtifactError: it is no archive, or a damaged one. The reader raises a dozen kinds of errors for these.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_single(archive)
            names = [n for n in archive.namelist() if _counts(n.partition("/")[2])]
            if len(set(names)) < len(names):
                raise ValueError("a record is there twice")
            return {name.partition("/")[2]: archive.read(name) for name in names}
    except Exception as failed:
        raise error(f"cannot read {path}: it is damaged, or no saved module: {first_line(failed)}") from failed


def _check_single(archive: zipfile.ZipFile) -> None:
    """Raise `ValueError` where torch may read other records than those that are checked here.

    torch takes the folder of the first record, and offsets from the start of the file; Python's reader takes every folder, and the
    last archive of a file.
    """
    if len({name.partition("/")[0] for name in archive.namelist()}) > 1:
        raise ValueError("its records are in several folders")
    if min((i.header_offset for i in archive.infolist()), default=0):
        raise ValueError("something stands before the archive")


def certified(found: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the records that a certificate is about: the module, its plan and its inputs."""
    return {name: record for name, record in found.items() if name not in (f"extra/{CERTIFICATE}", f"extra/{VERSIONS}")}


def sealed(found: Mapping[str, bytes]) -> str:
    """Return SHA-256 over all records, the extra files among them, but for the one that holds it."""
    digest = hashlib.sha256()
    add_records(digest, {name: record for name, record in found.items() if name != f"extra/{VERSIONS}"})
    return digest.hexdigest()


def add_records(digest: hashlib._Hash, found: Mapping[str, bytes]) -> None:
    """Add records to a digest, each with its name and length."""
    for name, record in sorted(found.items()):
        digest.update(f"{name}:{len(record)}:".encode())
        digest.update(record)


def _counts(name: str) -> bool:
    return name.startswith("extra/dendrofx_") or not (name.startswith(NOT_THE_MODULE) or name.endswith(NOT_THE_MODULE))
