"""A file of any format, opened: what is written beside the module, its seal, and what runs it."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dendrofx.artifact.archive import TORCHSCRIPT, VERSIONS, ZIP, records, sealed
from dendrofx.artifact.exported import STRUCTURE, metadata
from dendrofx.artifact.source import Source
from dendrofx.errors import ArtifactError
from dendrofx.formats.onnx_checks import PREFIX

PLAIN = ("weight_", "tensor_")  # what records of tensors are called in a program


@dataclass(frozen=True)
class Opened:
    """A file whose bytes were read.

    Attributes:
        records: by name; of an ONNX model its metadata alone, named as an archive names them.
        seal: of all but the record that holds it.
        runner: makes what is called with tensors by name.
    """

    records: Mapping[str, bytes]
    seal: str
    runner: Callable[[], Callable[..., Any]]


def opened_file(source: Source) -> Opened:
    """Open a file; its runner is made while it is open.

    Raises:
        ArtifactError: it is damaged, or no saved module.
    """
    data, path = source.data, source.path
    if not data.startswith(ZIP):
        return _onnx(data, path)
    found = records(data, str(path))
    scripted = any(name.startswith(TORCHSCRIPT) for name in found)
    if not scripted and f"extra/{VERSIONS}" in found:  # of others nothing is read
        _refuse_pickles(found, path)
    return Opened(found, sealed(found), lambda: _scripted(source) if scripted else _exported(data))


def _refuse_pickles(found: Mapping[str, bytes], path: object) -> None:
    """Raise `ArtifactError` where torch's reader of programs would unpickle more than tensors: a pickle can run anything."""
    said = f"cannot read {path}: it is damaged, or no saved module"
    for name, record in found.items():
        try:
            if name.endswith("_config.json"):
                parts = json.loads(record)["config"].values()
                if any(p["use_pickle"] or not p["path_name"].startswith(PLAIN) for p in parts):
                    said = (
                        f"{path} holds pickled objects beside tensors, which dendrofx does not write and does not load"
                    )
                    raise ValueError(name)
            elif name.startswith("data/sample_inputs/"):
                torch.load(io.BytesIO(record), weights_only=True)
        except Exception as error:
            raise ArtifactError(said) from error


def _scripted(source: Source) -> torch.jit.ScriptModule:
    loaded: torch.jit.ScriptModule = torch.jit.load(source.for_torch(), map_location="cpu")
    source.check_unchanged()
    return loaded.eval()


def _exported(data: bytes) -> Callable[..., Any]:
    from torch.export.pt2_archive._package import load_pt2

    contents = load_pt2(io.BytesIO(data))
    found: Callable[..., Any] | None = contents.aoti_runners.get("model")
    if found is not None:
        return found
    module: torch.nn.Module = contents.exported_programs["model"].module()
    for name in ("train", "eval"):  # which raise: a program has no modes
        setattr(module, name, MethodType(lambda self, mode=True: self, module))
    return module


def _onnx(data: bytes, path: object) -> Opened:
    try:
        onnxruntime = import_module("onnxruntime")
    except ImportError as error:
        said = "it is damaged, or was not written by dendrofx.save; an ONNX model would need onnxruntime, which is not installed"
        raise ArtifactError(f"cannot read {path}: {said}") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # an error is raised, not printed too
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        found = dict(session.get_modelmeta().custom_metadata_map)
    except Exception as error:
        ours = "damaged" if VERSIONS.encode() in data else "damaged, or was not written by dendrofx.save"
        raise ArtifactError(f"cannot read {path}: it is {ours}") from error
    tail = metadata(VERSIONS, found.get(VERSIONS, ""))
    seal = hashlib.sha256(data.removesuffix(tail)).hexdigest()
    structure = json.loads(found.get(STRUCTURE, "null"))
    return Opened({f"extra/{k}": v.encode() for k, v in found.items()}, seal, lambda: _session(session, structure))


def _session(session: Any, structure: Any) -> Callable[..., Any]:  # noqa: ANN401
    """Return what runs an ONNX session as the graph is called."""

    def run(**tensors: Tensor) -> Any:  # noqa: ANN401
        given = {name: x.detach().contiguous().numpy() for name, x in tensors.items()}
        try:
            found = session.run(None, given)
        except Exception as error:
            raise RuntimeError(_said(str(error))) from error
        return _restored(structure, iter([torch.from_numpy(np.array(x)) for x in found]))

    return run


def _said(text: str) -> str:
    """Return what an error of ONNX Runtime says: of a check of ours, which is an index out of range, its message alone."""
    found = re.search(r"running (\w+) node\. Name:'(.*?)' Status Message: (?:/\S*:\d+ )?(.*)", text, re.DOTALL)
    if found is None:
        return f"ONNX Runtime refuses the call: {text}"
    kind, name, why = found.groups()
    if name.startswith(PREFIX):
        return name.partition(": ")[2]
    return f"ONNX Runtime refuses the call in a {kind}, {name}: {why}"


def _restored(structure: Any, left: Iterator[Tensor]) -> Any:  # noqa: ANN401
    """Return an output of a structure."""
    if structure is None:
        return next(left)
    if isinstance(structure, dict):
        return {key: _restored(part, left) for key, part in structure.items()}
    kind, *parts = structure
    found = [_restored(part, left) for part in parts]
    return found if kind == "list" else tuple(found)
