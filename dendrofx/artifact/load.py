"""`load`: a saved file as a module that is called as the model was, with its plan, certificate and versions.

The seal is checked first, over the very file that torch then reads; one that is written to in between is refused. Python unpickles
nothing but tensors: torch's own readers take these and the code, pickled objects beside them are refused, and all else is JSON.
What AOTInductor compiled is native code.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dendrofx.artifact.archive import CERTIFICATE, INPUTS, PLAN, VERSIONS
from dendrofx.artifact.call_json import missing_classes
from dendrofx.artifact.certificate import verified
from dendrofx.artifact.description import FORMAT
from dendrofx.artifact.exported import GUARDS
from dendrofx.artifact.loaded import LoadedModule
from dendrofx.artifact.opened import Opened, opened_file
from dendrofx.artifact.source import opened_source
from dendrofx.errors import ArtifactError
from dendrofx.graph.show import first_line
from dendrofx.plan import file
from dendrofx.plan.plan import Plan
from dendrofx.version import VERSION


def load(path: str | Path) -> LoadedModule:
    """Read a module that `save` wrote, with all that the file says about it.

    Python unpickles nothing of it. Where the model returned an object of a class, that is used if its module is imported
    here, or is of transformers; else a dict or a tuple stands in for it, with a warning.

    Args:
        path: of the file.

    Returns:
        A module that is called with the same names and returns the same values.

    Raises:
        ArtifactError: no such file, or it is damaged, was changed since it was written, was written by something else or by another
            version; the message says which. `CertificateError` where it is the certificate.

    Example:
        >>> dendrofx.load("model.pt").plan.routed[0].name
        'fc1..fc2'
    """
    with opened_source(path) as source:
        made, described = _loaded(opened_file(source), path)
    _warn(described, path)
    return made


def _loaded(opened: Opened, path: str | Path) -> tuple[LoadedModule, Mapping[str, Any]]:
    """Return a file's module, and what the file says of its call."""
    found, wrote = opened.records, _checked(opened, path)
    try:
        described = json.loads(found[f"extra/{INPUTS}"])
        text = found.get(f"extra/{PLAN}")
        plan = None if text is None else file.from_json(Plan, json.loads(text))
        certificate = verified(found, path) if f"extra/{CERTIFICATE}" in found else None
        guards = json.loads(found.get(f"extra/{GUARDS}", b"[]"))
        made = LoadedModule(opened.runner(), plan, certificate, described, wrote, guards)
    except ArtifactError:
        raise
    except Exception as error:
        raise ArtifactError(f"cannot read {path}: {first_line(error)}") from error
    return made, described


def _checked(opened: Opened, path: str | Path) -> dict[str, str]:
    """Return the versions that wrote a file, its seal checked; raise `ArtifactError` where it is not one of this version's."""
    text = opened.records.get(f"extra/{VERSIONS}")
    if text is None:
        raise ArtifactError(
            f"{path} was not written by dendrofx.save of version {VERSION}: by an older one, or by something else."
            " torch.jit.load, torch.export.load or ONNX Runtime may run it; to have its plan here, transform and save again"
        )
    try:
        value = json.loads(text)
        wrote = {name: str(value[name]) for name in ("format", "dendrofx", "torch", "python", "seal")}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ArtifactError(f"{path} was changed since it was written: {VERSIONS} in it cannot be read") from error
    if wrote["format"] != str(FORMAT) or wrote["dendrofx"] != VERSION:
        raise ArtifactError(
            f"{path} was written by another version: dendrofx {wrote['dendrofx']} there, {VERSION} here. Load it with that one, run"
            " it with torch.jit.load, or transform and save again"
        )
    if opened.seal != wrote.pop("seal"):
        raise ArtifactError(
            f"{path} was changed since it was written: its records do not have its seal, but {opened.seal}"
        )
    return wrote


def _warn(described: Mapping[str, Any], path: str | Path) -> None:
    """Say what of a model's call or output the file's module does not have here."""
    if described["not_held"]:
        warnings.warn(f"{path}: {described['not_held']}; it takes and returns what its graph does", stacklevel=3)
    call = described["call"]
    if call is not None and (missing := missing_classes(call["output"])):
        module = missing[0].partition(":")[0]
        warnings.warn(
            f"{path} returned {missing[0]}, which is not known here: a plain container stands in for it. Import {module} before"
            " dendrofx.load",
            stacklevel=3,
        )
