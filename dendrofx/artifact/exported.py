"""Files in other formats than TorchScript: the bytes of one.

    pt2     a zip of torch's own, with a program of torch.export
    aoti    the same kind of zip, with the program compiled for this machine
    onnx    one ONNX model; what dendrofx writes beside it are its metadata

Each holds the plan, the inputs and call, and the versions with a seal over everything else, as the TorchScript file does. A
certificate is about the module as TorchScript computes it, so these files have none: rows within a gate's margin of the tolerance
may take another way here.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

from torch import Tensor, fx

from dendrofx.artifact.archive import VERSIONS, records, sealed
from dendrofx.artifact.description import versions
from dendrofx.branchless.checked import checks_by_index
from dendrofx.formats.compiled import compiled_files
from dendrofx.formats.onnx import onnx_bytes
from dendrofx.formats.onnx_names import places
from dendrofx.formats.program import export_program
from dendrofx.formats.quiet import quietly
from dendrofx.formats.sizes import size_guards
from dendrofx.graph.inputs import inputs_of
from dendrofx.values.meta import CALL

Format = Literal["torchscript", "pt2", "aoti", "onnx"]
GUARDS = "dendrofx_guards.json"  # what is assumed about the sizes of the inputs
STRUCTURE = "dendrofx_structure.json"  # of an ONNX model's outputs
_ONNX_METADATA = 14  # the number of `ModelProto.metadata_props`


def exported_bytes(
    gm: fx.GraphModule,
    format: Format,
    extra: Mapping[str, str],
    example: Mapping[str, Tensor] | None,
    counts: bool,
) -> bytes:
    """Return the file of a transformed module in another format; see `save`."""
    names = [one.name for one in inputs_of(gm)]
    checks: AbstractContextManager[list[str]] = checks_by_index() if format == "onnx" else nullcontext([])
    with checks as messages:
        program = export_program(gm, example, counts=counts, some=format == "aoti")
    guards = size_guards(program, names)
    about = {**extra, GUARDS: json.dumps(guards)}
    if format == "onnx":
        structure = _structure(program.call_spec.out_spec)
        about[STRUCTURE] = json.dumps(structure)
        returned = _returned(gm, structure, counts)
        return _sealed_onnx(onnx_bytes(program, names, returned, messages, guards, about))
    parts: dict[str, Any] = {"exported_programs": {"model": program}}
    if format == "aoti":
        parts = {"aoti_files": {"model": compiled_files(program)}}
    return _sealed_zip(parts, about)


def _sealed_zip(parts: Mapping[str, Any], extra: Mapping[str, str]) -> bytes:
    """Package parts, and add a record with the seal of all others."""
    from torch.export.pt2_archive._package import package_pt2

    buffer = io.BytesIO()
    with quietly():  # of weights that are views it says how it stores them
        package_pt2(buffer, **parts, extra_files=dict(extra))
    found = records(buffer.getvalue(), "the file")
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        folder = archive.namelist()[0].partition("/")[0]
        archive.writestr(f"{folder}/extra/{VERSIONS}", json.dumps(versions(sealed(found))))
    return buffer.getvalue()


def _sealed_onnx(data: bytes) -> bytes:
    """Add the versions and the seal of an ONNX model to its metadata: messages that follow each other are one."""
    text = json.dumps(versions(hashlib.sha256(data).hexdigest()))
    return data + metadata(VERSIONS, text)


def metadata(key: str, value: str) -> bytes:
    """Return an entry of a `ModelProto`'s metadata, serialised."""

    def field(number: int, content: bytes) -> bytes:
        return _varint(number << 3 | 2) + _varint(len(content)) + content

    return field(_ONNX_METADATA, field(1, key.encode()) + field(2, value.encode()))


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def _returned(gm: fx.GraphModule, structure: Any, counts: bool) -> list[str]:  # noqa: ANN401
    """Return the names of an output's tensors: those of the model's own where the graph's is flat."""
    output, sites = structure[1:] if counts else (structure, {})
    form, flat = gm.meta.get(CALL), places(output)
    own = None if form is None or form.output is None else form.output.names
    return [*(flat if own is None or len(own) != len(flat) else own), *(places(sites, "counts"))]


def _structure(spec: Any) -> Any:  # noqa: ANN401
    """Return the structure of an output as plain JSON: None for a tensor, a dict, or a list whose first part says its kind."""
    if spec.is_leaf():
        return None
    parts = [_structure(child) for child in spec.children()]
    if issubclass(spec.type, Mapping):  # graphs have mappings of their own
        return dict(zip(spec.context, parts, strict=True))
    return ["list" if issubclass(spec.type, list) else "tuple", *parts]
