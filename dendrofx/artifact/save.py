"""`save`: a transformed module as one file, of TorchScript by default, with all that is known about it beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import get_args

from torch import Tensor, fx, nn

from dendrofx.artifact.archive import CERTIFICATE, INPUTS, PLAN, VERSIONS, records, sealed
from dendrofx.artifact.certificate import digest, verified
from dendrofx.artifact.description import described, versions
from dendrofx.artifact.exported import Format, exported_bytes
from dendrofx.artifact.loaded import LoadedModule
from dendrofx.errors import CertificateError, InputError
from dendrofx.guarantee.certificate import Certificate
from dendrofx.lowering.script import script, script_bytes
from dendrofx.machine.files import check_target, write_whole
from dendrofx.plan.plan import Plan


def save(
    module: nn.Module,
    path: str | Path,
    *,
    format: Format = "torchscript",
    freeze: bool = False,
    example: Mapping[str, Tensor] | None = None,
    counts: bool = False,
) -> None:
    """Write a transformed module as one file, whole or not at all.

    `torch.jit.load` runs a TorchScript file with torch alone; `dendrofx.load` gives back what else is in a file of any format: the
    plan, the certificate, the versions, and how the model was called and what it returned.

    Args:
        module: what `transform` returned; without a plan or a certificate it is written all the same.
        path: of the file.
        format: "torchscript"; "pt2", a program of `torch.export`; "aoti", that program compiled by AOTInductor for this machine's
            instructions, which needs a C++ compiler; or "onnx", for ONNX Runtime. The last three compute rows by index, without
            branches, and have no certificate: see the guide to deployment for what else differs.
        freeze: of TorchScript, see `script`.
        example: of the others, tensors by name that the model takes; by default made up from the plan's shapes.
        counts: of the others, return `(output, {site: f64[4]})`: rows, hard rows, those within the gate's margin of the
            tolerance, and the largest score in millionths. TorchScript has `forward_counted` beside `forward`.

    Raises:
        CertificateError: the module was changed since it was certified, or `path` names no file.
        InputError: see `script`; the format cannot hold the module, with the reason; or TorchScript is to be a `.onnx` or `.pt2`.
        OSError: it cannot be written, on a full disk say: an older file at `path` is as it was.

    Example:
        >>> dendrofx.save(routed, "model.pt")
        >>> torch.jit.load("model.pt")(x)
        >>> dendrofx.save(routed, "model.onnx", format="onnx")
    """
    check_target(path, CertificateError)
    check_suffix(path, format)
    if format not in get_args(Format):
        raise InputError(f"format is one of {', '.join(get_args(Format))}, got {format!r}")
    _check_options(module, format, freeze, example)
    plan: Plan | None = getattr(module, "plan", None)
    made: Certificate | None = getattr(plan, "certificate", None)
    if made is not None:
        made.verify(module)
    extra = {INPUTS: json.dumps(described(module, counts and format != "torchscript"), allow_nan=False)}
    if isinstance(plan, Plan):
        told = plan if format == "torchscript" else replace(plan, certificate=None)
        extra[PLAN] = json.dumps(told.to_json(), allow_nan=False)
    if format == "torchscript":
        data = _script_file(module, path, extra, made, freeze)
    elif isinstance(module, fx.GraphModule):
        data = exported_bytes(module, format, extra, example, counts)
    else:
        raise InputError(f"format={format!r} takes what transform returned, got {type(module).__name__}")
    write_whole(path, data, CertificateError)


def check_suffix(path: str | Path, format: str) -> None:
    """Raise `InputError` where TorchScript would be written under a name by which other runtimes know their files."""
    other = {".onnx": 'format="onnx"', ".pt2": 'format="pt2" or "aoti"'}.get(Path(path).suffix.lower())
    if format == "torchscript" and other is not None:
        raise InputError(f"{path} is no name for TorchScript: pass {other}, or name a .pt file")


def _check_options(module: nn.Module, format: Format, freeze: bool, example: Mapping[str, Tensor] | None) -> None:
    """Raise `InputError` for what a format has no use for, and for a module that is a file already."""
    if isinstance(module, LoadedModule):
        raise InputError("the module is from a file: copy the file, or save what transform returned in another format")
    if format == "torchscript" and example is not None:
        raise InputError("example= is for the other formats: TorchScript is compiled without one")
    if format != "torchscript" and freeze:
        raise InputError(f"freeze= is for TorchScript: format={format!r} holds its weights as constants anyway")


def _script_file(
    module: nn.Module, path: str | Path, extra: dict[str, str], made: Certificate | None, freeze: bool
) -> bytes:
    """Return the bytes of a TorchScript file, sealed, with its certificate."""
    scripted = script(module, freeze=freeze)
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
    return data
