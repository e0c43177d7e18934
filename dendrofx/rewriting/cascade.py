"""Building a cascade: two models and a gate in one graph.

graph(x: f32[N, 4096])
  cascade_light = routed.model.light([x])
  decision      = cascade_light[0]
  cascade_gate  = routed.model.gate(decision)
  ...
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, List, cast  # noqa: UP035

import torch
from torch import Tensor, fx, nn

from dendrofx.rewriting.module import RoutedModule
from dendrofx.runtime.cascade import FullOnDoubtful, doubt_not_finite
from dendrofx.runtime.routing import split_rows
from dendrofx.values.guards import axes
from dendrofx.values.inputs import Inputs
from dendrofx.values.meta import CALL, CARRIED, ENTERED, NOTE, SHAPES, Note

NAME = "model"
PREFIX = f"routed.{NAME}"
# Light runs on all samples before the gate: there is nothing to choose between easy samples and all.
NEVER_EASY_ONLY = 2.0


def list_form(gm: fx.GraphModule) -> RoutedModule:
    """Return the same graph from one list of tensors to one list of tensors, so that a leaf can call any model.

    Args:
        gm: left unchanged; parameters are shared.
    """
    graph = fx.Graph()
    given = graph.placeholder("inputs", type_expr=List[Tensor])  # noqa: UP006  (TorchScript reads it)
    copied: dict[fx.Node, fx.Node] = {}
    inputs = [n for n in gm.graph.nodes if n.op == "placeholder"]
    for i, node in enumerate(inputs):
        picked = graph.call_function(operator.getitem, (given, i))
        picked.meta.update({key: node.meta[key] for key in (ENTERED,) if key in node.meta})
        copied[node] = picked
    result: Any = None
    for node in gm.graph.nodes:
        if node.op == "output":
            result = fx.node.map_arg(node.args[0], lambda n: copied[n])
        elif node.op != "placeholder":
            copied[node] = graph.node_copy(node, lambda n: copied[n])
    graph.output(flat(result))
    made = RoutedModule(gm, graph)
    return made.eval().requires_grad_(False)


def flat(result: Any) -> list[fx.Node]:  # noqa: ANN401
    """Return the nodes of an output, in order."""
    found: list[fx.Node] = []
    fx.node.map_arg(result, lambda n: found.append(n) or n)  # type: ignore[func-returns-value]
    return found


def build(
    captured: fx.GraphModule,
    light: fx.GraphModule,
    gate: nn.Module,
    full: fx.GraphModule,
    batched: Sequence[str],
    decision: int,
    finite: Sequence[str] = (),
    carried: int = 0,
) -> RoutedModule:
    """Return the cascade, at tolerance 0: every sample is recomputed, and the outputs are those of `full`.

    Args:
        captured: whose inputs and outputs it has.
        light: a graph module with the same inputs and outputs.
        gate: maps its decision output, f32[N, ...], to a score f32[N].
        full: another such graph module.
        batched: names of the inputs that carry samples on axis 0.
        decision: which of the output's tensors the gate reads.
        finite: names of inputs with samples that are recomputed where they are not finite; see `finite_inputs`.
        carried: how many values `light` gives after its outputs, and `full` takes after its inputs, to go on from.
    """
    root = nn.Module()
    root.add_module("routed", nn.Module())
    inner = nn.Module()
    root.get_submodule("routed").add_module(NAME, inner)
    names = [str(n.target) for n in captured.graph.nodes if n.op == "placeholder"]
    inner.add_module("light", list_form(light))
    inner.add_module("gate", gate)
    inner.add_module(
        "full", FullOnDoubtful(list_form(full), [*(n in batched for n in names), *[True] * carried], carried)
    )
    behind = cascade_parts(full)  # a second exit has the same tolerance: one is set for both
    inner.register_buffer("tolerance", torch.zeros(()) if behind is None else full.get_buffer(f"{PREFIX}.tolerance"))
    graph = fx.Graph()
    inputs = [graph.placeholder(n, type_expr=Tensor) for n in names]

    def create(op: str, target: Any, args: tuple[Any, ...], name: str) -> fx.Node:  # noqa: ANN401
        node = graph.create_node(op, target, args, name=name)
        node.meta[NOTE] = Note(NAME, name.rpartition("_")[2])
        return node

    outputs = create("call_module", f"{PREFIX}.light", (inputs,), "cascade_light")
    read = create("call_function", operator.getitem, (outputs, decision), "decision")
    score = create("call_module", f"{PREFIX}.gate", (read,), "cascade_gate")
    if finite:
        watched = [node for node, name in zip(inputs, names, strict=True) if name in finite]
        score = create("call_function", doubt_not_finite, (score, watched), "cascade_score")
    tolerance = create("get_attr", f"{PREFIX}.tolerance", (), "cascade_tolerance")
    split = create("call_function", split_rows, (score, tolerance, NEVER_EASY_ONLY), "cascade_split")
    result = create("call_module", f"{PREFIX}.full", (inputs, outputs, split), "cascade_full")
    result.meta[CARRIED] = carried
    source = next(n for n in captured.graph.nodes if n.op == "output").args[0]
    place = iter(range(len(flat(source))))
    graph.output(fx.node.map_arg(source, lambda _: graph.call_function(operator.getitem, (result, next(place)))))
    made = RoutedModule(root, graph)
    made.meta.update(captured.meta)
    guard_axes(made, {n: count for n in batched if (count := _axes(captured, n)) is not None})
    return made.eval().requires_grad_(False)


def guard_axes(cascade: fx.GraphModule, counts: Mapping[str, int]) -> None:
    """Refuse calls whose inputs have more or fewer axes than the samples that a budget was tested on.

    With one less, axis 0 counts something else; with one more, a sample has several decisions where those had one.

    Args:
        cascade: is changed, in every call and in its script.
        counts: axes by input.
    """
    if (form := cascade.meta.get(CALL)) is not None:
        known = [g for g in form.guards if ".dim()" not in g]
        cascade.meta[CALL] = replace(form, guards=(*(axes(n, count) for n, count in counts.items()), *known))


def _axes(captured: fx.GraphModule, name: str) -> int | None:
    """Return how many axes an input has; None where the capture does not say so."""
    node = next(n for n in captured.graph.nodes if n.op == "placeholder" and n.target == name)
    shapes = node.meta.get(SHAPES)
    return len(shapes[0]) if isinstance(shapes, list) and shapes else None


def finite_inputs(batched: Sequence[str], batches: Sequence[Inputs]) -> tuple[str, ...]:
    """Return the float inputs with samples that are finite in every batch: an additive mask of -inf is like any other input."""
    found = []
    for name in batched:
        given = [dict(b.kwargs)[name] for b in batches if name in dict(b.kwargs)]
        if given and all(t.is_floating_point() and bool(t.isfinite().all()) for t in given):
            found.append(name)
    return tuple(found)


def shared_inputs(module: fx.GraphModule) -> frozenset[str]:
    """Return the names of the inputs that all samples of a cascade share; none of any other module."""
    if (parts := cascade_parts(module)) is None:
        return frozenset()
    names = [str(n.target) for n in module.graph.nodes if n.op == "placeholder"]
    return frozenset(
        n for n, batched in zip(names, parts[2].batched, strict=False) if not batched
    )  # a cut's value follows


def cascade_parts(module: nn.Module) -> tuple[RoutedModule, nn.Module, FullOnDoubtful] | None:
    """Light, gate and full of a cascade; None of any other module."""
    inner = getattr(getattr(module, "routed", None), NAME, None)
    full = getattr(inner, "full", None)
    if inner is None or not isinstance(full, FullOnDoubtful):
        return None
    return cast(RoutedModule, inner.light), cast(nn.Module, inner.gate), full
