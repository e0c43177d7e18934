"""A program as ONNX, for ONNX Runtime and what else reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram

from dendrofx.errors import InputError
from dendrofx.formats.cause import cause
from dendrofx.formats.onnx_checks import add_size_checks, name_checks
from dendrofx.formats.onnx_names import name_values
from dendrofx.formats.quiet import quietly
from dendrofx.machine.needed import needed

aten = torch.ops.aten
NO_PLACE = 2**31 - 1  # in no table
# What torch's exporter writes as sums of powers, which are infinite where the operator is not.
OVERFLOWS = (aten.logaddexp2.default, aten.logcumsumexp.default)


def onnx_bytes(
    program: ExportedProgram,
    names: Sequence[str],
    returned: Sequence[str],
    messages: Sequence[str],
    guards: Sequence[str],
    about: Mapping[str, str],
) -> bytes:
    """Return a program as a serialised ONNX model, its weights inside.

    Args:
        program: traced within `checks_by_index`; changed.
        names: of its inputs, in order.
        returned: names of its outputs, in order.
        messages: of its checks, in order; the nodes that check bear them as names, which ONNX Runtime quotes.
        guards: over the sizes of its inputs.
        about: what is written beside the graph, by name.

    Raises:
        InputError: packages are missing, an operator has no form in ONNX, or the file would be larger than ONNX's 2 GB.
    """
    for name in ("onnx", "onnxscript"):
        needed(name, "format='onnx'", "dendrofx[onnx]")
    _refuse(program)
    _join_logs(program)
    try:
        with quietly():
            made = torch.onnx.export(program, (), dynamo=True, custom_translation_table=_translations(), verbose=False)
    except Exception as error:
        raise InputError(
            f"the transformed module has no form in ONNX: {cause(error)}. Write it as format='torchscript' or 'pt2'"
        ) from error
    assert made is not None
    model = made.model_proto
    name_values(model.graph, names, returned)
    name_checks(model.graph, messages)
    add_size_checks(model.graph, guards)
    for name, text in about.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = name, text
    data: bytes = model.SerializeToString()
    return data


def _refuse(program: ExportedProgram) -> None:
    """Raise where an operator would overflow, or a tensor that goes in or comes out is of a type that Python cannot hand over."""
    signature = program.graph_signature
    for node in program.graph.nodes:
        value = node.meta.get("val")
        outer = node.name in (*signature.user_inputs, *signature.user_outputs)
        if outer and isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16:
            raise InputError(
                f"%{node.name} is bfloat16, which ONNX Runtime neither takes from Python nor returns: convert it in the model,"
                " or write format='pt2'"
            )
        if node.target in OVERFLOWS:
            raise InputError(
                f"%{node.name}, {node.target}, would be infinite in ONNX for large values: write format='torchscript' or 'pt2'"
            )


def _join_logs(program: ExportedProgram) -> None:
    """Make `log(sigmoid(x))` one operator, in place: ONNX Runtime's sigmoid is 0 below -18, whose log is none."""
    for node in program.graph.find_nodes(op="call_function", target=aten.log.default):
        given = node.args[0]
        if given.target is aten.sigmoid.default and given.meta["val"].dtype == given.args[0].meta["val"].dtype:
            node.target, node.args = aten.log_sigmoid.default, given.args


def _translations() -> dict[Any, Callable[..., Any]]:
    """Return the operators that torch's exporter does not know, takes for others or inexactly, and what they are in ONNX."""
    from onnxscript import opset18

    op: Any = opset18

    def like(number: float, x: Any) -> Any:  # noqa: ANN401
        return op.CastLike(op.Constant(value_float=number), x)

    def int_mm(rows: Any, weight: Any) -> Any:  # noqa: ANN401
        return op.MatMulInteger(rows, weight)

    def embedding(weight: Any, ids: Any, *_: object, **__: object) -> Any:  # noqa: ANN401
        """A place below 0 is none in torch; ONNX would count from the end."""
        zero, none = (op.CastLike(op.Constant(value_int=number), ids) for number in (0, NO_PLACE))
        return op.Gather(weight, op.Where(op.Less(ids, zero), none, ids))

    def bend(x: Any, single: bool) -> Any:  # noqa: ANN401
        """Return `log(1 + exp(-|x|))`, with an operator of its own where ONNX Runtime has it."""
        below = op.Neg(op.Abs(x))
        return op.Softplus(below) if single else op.Log(op.Add(op.Exp(below), like(1.0, x)))

    def log_sigmoid(x: Any) -> Any:  # noqa: ANN401
        return op.Sub(op.Min(x, like(0.0, x)), bend(x, x.dtype.name == "FLOAT"))

    def logaddexp(x: Any, y: Any) -> Any:  # noqa: ANN401
        """Equal infinities are 0 apart, though their difference is none."""
        apart = op.Where(op.Equal(x, y), like(0.0, x), op.Sub(x, y))
        return op.Add(op.Max(x, y), bend(apart, x.dtype.name == "FLOAT"))

    return {
        aten._int_mm.default: int_mm,
        aten.embedding.default: embedding,
        aten.log_sigmoid.default: log_sigmoid,
        aten.logaddexp.default: logaddexp,
    }
