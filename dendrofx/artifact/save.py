"""`save`: a transformed module as one TorchScript file, with all that is known about it among its extra files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from torch import nn

from dendrofx.artifact.archive import CERTIFICATE, INPUTS, PLAN, VERSIONS, records, sealed
from dendrofx.artifact.certificate import digest, verified
from dendrofx.artifact.description import described, versions
from dendrofx.errors import CertificateError
from dendrofx.guarantee.certificate import Certificate
from dendrofx.lowering.script import script, script_bytes
from dendrofx.machine.files import check_target, write_whole
from dendrofx.plan.plan import Plan


def save(module: nn.Module, path: str | Path, *, freeze: bool = False) -> None:
    """Script a transformed module and write it as one file, whole or not at all.

    `torch.jit.load` runs the file with torch alone; `dendrofx.load` gives back what else is in it: the plan, the certificate, the
    versions, and how the model was called and what it returned.

    Args:
        module: what `transform` returned; without a plan or a certificate it is written all the same.
        path: of the file.
        freeze: see `script`.

    Raises:
        CertificateError: the module was changed since it was certified, or `path` names no file.
        InputError: see `script`.
        OSError: it cannot be written, on a full disk say: an older file at `path` is as it was.

    Example:
        >>> dendrofx.save(routed, "model.pt")
        >>> torch.jit.load("model.pt")(x)
    """
    check_target(path, CertificateError)
    plan: Plan | None = getattr(module, "plan", None)
    made: Certificate | None = getattr(plan, "certificate", None)
    if made is not None:
        made.verify(module)
    scripted, extra = script(module, freeze=freeze), {INPUTS: json.dumps(described(module), allow_nan=False)}
    if isinstance(plan, Plan):
        extra[PLAN] = json.dumps(plan.to_json(), allow_nan=False)
    if made is not None:
        shown = replace(made, archive=digest(records(script_bytes(scripted, extra), path), made))
        extra[CERTIFICATE] = json.dumps(shown.to_json())
    seal = sealed(records(script_bytes(scripted, extra), path))
    data = script_bytes(scripted, {**extra, VERSIONS: json.dumps(versions(seal))})
    found = records(data, path)
    if made is not None:
        verified(found, path)  # what is written next must verify
    if sealed(found) != seal:
        raise CertificateError(f"cannot write {path}: torch wrote the same module in two ways. Save it again")
    write_whole(path, data, CertificateError)
