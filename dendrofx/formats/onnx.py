"""A program as ONNX, for ONNX Runtime and what else reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.export import ExportedProgram

from dendrofx.errors import InputError
from dendrofx.formats.quiet import quietly
from dendrofx.graph.show import first_line
from dendrofx.machine.needed import needed


def onnx_bytes(program: ExportedProgram, messages: list[str], about: Mapping[str, str]) -> bytes:
    """Return a program as a serialised ONNX model, its weights inside.

    Args:
        program: traced within `checks_by_index`.
        messages: of its checks, in order; the nodes that check bear them as names, which ONNX Runtime quotes.
        about: what is written beside the graph, by name.

    Raises:
        InputError: packages are missing, an operator has no form in ONNX, or the file would be larger than ONNX's 2 GB.
    """
    for name in ("onnx", "onnxscript"):
        needed(name, "format='onnx'", "dendrofx[onnx]")
    try:
        with quietly():
            made = torch.onnx.export(program, (), dynamo=True, custom_translation_table=_translations(), verbose=False)
    except Exception as error:
        raise InputError(
            f"the transformed module has no form in ONNX: {first_line(error)}. Write it as format='torchscript' or 'pt2'"
        ) from error
    assert made is not None
    model = made.model_proto
    _name_checks(model, messages)
    for name, text in about.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = name, text
    data: bytes = model.SerializeToString()
    return data


def _translations() -> dict[Any, Callable[..., Any]]:
    """Return the operators that torch's exporter does not know, and what they are in ONNX."""
    from onnxscript import opset18 as op

    def int_mm(rows: Any, weight: Any) -> Any:  # noqa: ANN401
        return op.MatMulInteger(rows, weight)

    return {torch.ops.aten._int_mm.default: int_mm}


def _name_checks(model: Any, messages: list[str]) -> None:  # noqa: ANN401  (onnx has no types)
    """Name the nodes that check after what they say: those that read a tensor of one zero; see `branchless/checked.py`."""
    zeros = {i.name for i in model.graph.initializer if list(i.dims) == [1] and not any(i.raw_data)}
    checks = [n for n in model.graph.node if n.op_type == "Gather" and n.input[0] in zeros]
    for node, message in zip(checks, messages, strict=True):
        node.name = message
