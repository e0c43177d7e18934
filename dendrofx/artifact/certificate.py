"""Read the certificate of a saved module, and check it against the file.

`save` writes it among the extra files of the TorchScript archive, beside a digest of everything else in it. A file
whose weights, thresholds or code were changed afterwards no longer verifies. It is no signature: whoever can write the file can
write another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dendrofx.artifact.archive import CERTIFICATE, TORCHSCRIPT, VERSIONS, ZIP, add_records, certified, content, records
from dendrofx.errors import CertificateError
from dendrofx.guarantee.certificate import Certificate
from dendrofx.version import VERSION

NONE_HERE = (
    "holds no certificate, as no file of a format other than TorchScript does: it is about the module as TorchScript computes it,"
    " and rows within a gate's margin of the tolerance may take another way here. dendrofx.save(routed, path) writes it"
)


def certificate(path: str | Path) -> Certificate:
    """Read the certificate of a saved module, and check that it is of this file.

    Raises:
        CertificateError: no such file, no certificate in it, or the file was changed since it was written.

    Example:
        >>> dendrofx.save(certain, "certain.pt")
        >>> dendrofx.certificate("certain.pt")
    """
    data = content(path, CertificateError)
    if not data.startswith(ZIP) and VERSIONS.encode() in data:
        raise CertificateError(f"{path} {NONE_HERE}")
    return verified(records(data, path, CertificateError), path)


def archive_digest(path: Path, shown: Certificate) -> str:
    """Return SHA-256 over an archive's records (code, constants, weights, thresholds) and over the certificate's figures."""
    return digest(records(path.read_bytes(), path, CertificateError), shown)


def verified(found: Mapping[str, bytes], path: str | Path) -> Certificate:
    """Return the certificate among an archive's records, verified.

    Raises:
        CertificateError: there is none, or it is of other records, or does not follow from its figures.
    """
    if (text := found.get(f"extra/{CERTIFICATE}")) is None:
        if not any(name.startswith(TORCHSCRIPT) for name in found):
            raise CertificateError(f"{path} {NONE_HERE}")
        raise CertificateError(
            f"{path} holds no certificate: transform with a budget that is certified, flip:0.01:0.95 say, and save again"
        )
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CertificateError(f"the certificate in {path} cannot be read: {error}") from error
    _check_version(value, path)
    try:
        shown = Certificate.from_json(value)
    except (ValueError, RecursionError) as error:
        raise CertificateError(f"the certificate in {path} cannot be read: {error}") from error
    if (here := digest(found, shown)) != shown.archive:
        raise CertificateError(
            f"{path} was changed since it was certified: digest {here}, the certificate is for {shown.archive}"
        )
    try:
        shown.check_figures()
    except CertificateError as error:
        raise CertificateError(f"{path}: {error}") from error
    return shown


def _check_version(value: Any, path: str | Path) -> None:  # noqa: ANN401
    """Refuse a certificate of another version by name: its fields and digests may mean something else there."""
    there = value.get("dendrofx", VERSION) if isinstance(value, dict) else VERSION
    if there != VERSION:
        raise CertificateError(
            f"the certificate in {path} was made by another version: dendrofx {there} there, {VERSION} here. Read it with that"
            " one, or transform again"
        )


def digest(found: Mapping[str, bytes], shown: Certificate) -> str:
    """Return SHA-256 over what the module is, its plan, and what was shown of it."""
    made = hashlib.sha256(json.dumps(replace(shown, archive="").to_json(), sort_keys=True).encode())
    add_records(made, certified(found))
    return made.hexdigest()
