"""A transformed module as a program of `torch.export`: one graph of ATen operators, whose sizes vary where the module's do."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import Dim, ExportedProgram

from dendrofx.branchless.cascade import FullOnDoubtful
from dendrofx.branchless.counted import counted
from dendrofx.branchless.live import live_rows, some_live
from dendrofx.branchless.twins import branchless
from dendrofx.errors import InputError
from dendrofx.formats.cause import cause
from dendrofx.formats.example import GIVE_EXAMPLE, from_caller, made_up, varying
from dendrofx.formats.quiet import quietly
from dendrofx.formats.sizes import shapes, size_guards, warn_of_small
from dendrofx.graph.inputs import inputs_of
from dendrofx.lowering.operators import check_graphs
from dendrofx.values.guards import add_guards
from dendrofx.values.meta import CALL


def export_program(
    gm: fx.GraphModule, example: Mapping[str, Tensor] | None = None, *, counts: bool = False, some: bool = False
) -> ExportedProgram:
    """Return a transformed module as an exported program.

    Args:
        gm: what `transform` returned; left unchanged.
        example: a tensor by input name; by default one is made up from the shapes that the graph was annotated with.
        counts: return `(output, {site: f64[4]})`, with rows, hard rows, those near the tolerance and the largest score.
        some: refuse calls without a live row, even where they could be computed: native code divides by their number.

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
    given = made_up(gm) if example is None else from_caller(gm, example)
    graph = _guarded(gm)
    module = counted(gm, graph)[0] if counts else branchless(gm, graph)
    _mark_empty(module, given)
    axes = {i.name: varying(i, tensor) for i, tensor in zip(inputs, given.values(), strict=True)}
    dynamic = {name: dict.fromkeys(own, Dim.AUTO) for name, own in axes.items()}
    program = _traced(module, given, dynamic, some)
    _check_varies(program, axes)
    warn_of_small(size_guards(program, list(axes)), module, inputs, given)
    return program


def _traced(
    module: torch.nn.Module, given: Mapping[str, Tensor], dynamic: Mapping[str, Mapping[int, Any]], some: bool
) -> ExportedProgram:
    """Return a program; where it cannot be one for calls without a live row, one that refuses these."""
    ways: list[Callable[[], AbstractContextManager[None]]]
    ways = [some_live] if some else [nullcontext, some_live] if _drops_rows(module) else [nullcontext]
    for way in ways:
        try:
            with way(), torch.no_grad(), quietly():
                return torch.export.export(module, (), dict(given), dynamic_shapes=dict(dynamic), strict=False)
        except Exception as error:
            failed = error
    raise InputError(
        f"torch.export cannot trace the transformed module: {cause(failed)}. TorchScript can; or {GIVE_EXAMPLE} of other sizes"
    ) from failed


def _drops_rows(module: torch.nn.Module) -> bool:
    """Return whether a module leaves out dead rows anywhere."""
    graphs = (m.graph for m in module.modules() if isinstance(m, fx.GraphModule))
    return any(node.target is live_rows for graph in graphs for node in graph.nodes)


def _guarded(gm: fx.GraphModule) -> fx.Graph:
    """Return a copy of a module's graph with checks of the sizes it was captured for."""
    graph, form = copy.deepcopy(gm.graph), gm.meta.get(CALL)
    if form is not None and form.guards:
        add_guards(graph, form.model, form.guards)
    return graph


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
    for name, shape in shapes(program, list(axes)).items():
        for axis in axes[name]:
            if isinstance(size := shape[axis], int):
                raise InputError(
                    f"axis {axis} of '{name}' varies, but torch.export can trace the module for {size} alone: {GIVE_EXAMPLE} of"
                    " other sizes, or write TorchScript"
                )
