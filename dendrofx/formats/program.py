"""A transformed module as a program of `torch.export`: one graph of ATen operators, whose sizes vary where the module's do."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, fx
from torch.export import Dim, ExportedProgram

from dendrofx.branchless.cascade import FullOnDoubtful
from dendrofx.branchless.twins import branchless, counted
from dendrofx.errors import InputError
from dendrofx.formats.quiet import quietly
from dendrofx.graph.inputs import Input, inputs_of
from dendrofx.graph.show import first_line
from dendrofx.lowering.operators import check_graphs
from dendrofx.values.guards import add_guards
from dendrofx.values.meta import CALL, SEEN

MANY = 3  # least size of an axis that varies in an example: `torch.export` takes 0 and 1 for special
GIVE_EXAMPLE = "pass example=, tensors by name that the model takes"


def export_program(
    gm: fx.GraphModule, example: Mapping[str, Tensor] | None = None, *, counts: bool = False
) -> ExportedProgram:
    """Return a transformed module as an exported program.

    Args:
        gm: what `transform` returned; left unchanged.
        example: a tensor by input name; by default one is made up from the shapes that the graph was annotated with.
        counts: return `(output, {site: f64[4]})`, with rows, hard rows, those near the tolerance and the largest score.

    Returns:
        A program with the inputs of the graph by name. Axes that vary for the module vary for the program.

    Raises:
        InputError: `torch.export` cannot trace it, or would fix the size of an axis that varies; the message says which. Or there
            is no example, and the graph has no shapes to make one from.

    Example:
        >>> torch.export.save(export_program(routed), "routed.pt2")
    """
    check_graphs(gm)
    inputs = inputs_of(gm)
    given = made_up(gm) if example is None else _in_order(inputs, example)
    module = branchless(gm, _graph(gm, counts))
    _mark_empty(module, given)
    axes = {i.name: _varying(i, tensor) for i, tensor in zip(inputs, given.values(), strict=True)}
    dynamic = {name: dict.fromkeys(own, Dim.AUTO) for name, own in axes.items()}
    try:
        with torch.no_grad(), quietly():
            program = torch.export.export(module, (), dict(given), dynamic_shapes=dynamic, strict=False)
    except Exception as error:
        raise InputError(
            f"torch.export cannot trace the transformed module: {first_line(error)}. TorchScript can; or {GIVE_EXAMPLE} of"
            " other sizes"
        ) from error
    _check_varies(program, axes)
    return program


def _graph(gm: fx.GraphModule, counts: bool) -> fx.Graph:
    """Return a copy of a module's graph with checks of the sizes it was captured for, and with counts."""
    graph, form = copy.deepcopy(gm.graph), gm.meta.get(CALL)
    if counts:
        graph = counted(gm, graph)
    if form is not None and form.guards:
        add_guards(graph, form.model, form.guards)
    return graph


def made_up(gm: fx.GraphModule) -> dict[str, Tensor]:
    """Return tensors of ones that a graph takes, by name: of the sizes of the example that it was transformed with.

    Raises:
        InputError: an input of unknown shape or type.
    """
    found = {}
    for node, one in zip((n for n in gm.graph.nodes if n.op == "placeholder"), inputs_of(gm), strict=True):
        if one.axes is None or one.dtype is None or SEEN not in node.meta:
            raise InputError(f"the shape of '{one.name}' is not known here: {GIVE_EXAMPLE}")
        shape = [
            MANY if size < MANY and isinstance(axis, str) else size
            for axis, size in zip(one.axes, node.meta[SEEN], strict=True)
        ]
        found[one.name] = torch.ones(shape, dtype=getattr(torch, one.dtype))
    return found


def _in_order(inputs: Sequence[Input], example: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return an example in the order of a graph's inputs."""
    names = [one.name for one in inputs]
    if set(names) != set(example):
        raise InputError(f"example has {sorted(example)}, the module takes {names}: {GIVE_EXAMPLE}")
    return {name: example[name] for name in names}


def _varying(one: Input, tensor: Tensor) -> list[int]:
    """Return the axes of an input that vary: those with a letter; of an input without known shape its first."""
    if one.axes is None:
        return [0] if tensor.dim() else []
    return [axis for axis, size in enumerate(one.axes) if isinstance(size, str)]


def _mark_empty(module: torch.nn.Module, given: Mapping[str, Tensor]) -> None:
    """Find out which originals of cascades run on no samples, and note it; see `branchless/cascade.py`."""
    cascades = [m for m in module.modules() if isinstance(m, FullOnDoubtful)]
    if not cascades:
        return
    none = {name: tensor[:0] if tensor.dim() else tensor for name, tensor in given.items()}
    try:
        with torch.no_grad():
            module(**none)
    except Exception:
        for leaf in cascades:
            leaf.takes_none = False


def _check_varies(program: ExportedProgram, axes: Mapping[str, Sequence[int]]) -> None:
    """Raise where an axis that varies was fixed."""
    values = {n.name: n.meta["val"] for n in program.graph.nodes if n.op == "placeholder"}
    for name, own in axes.items():
        for axis in own:
            if isinstance(size := values[name].shape[axis], int):
                raise InputError(
                    f"axis {axis} of '{name}' varies, but torch.export can trace the module for {size} alone: {GIVE_EXAMPLE} of"
                    " other sizes, or write TorchScript"
                )
