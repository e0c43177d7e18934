r"""Cuts of a graph: values on which all later work depends, so that a sample can leave there or go on from there.

    x -> stem -> h0 -> block -> h1 -> block -> h2 -> head -> y        cuts: x, h0, h1, h2
          mask ------>        \--+-->/                                 the sum is a cut, what it adds up is none

A value is a cut where it dominates the rest: no work after it reads what was computed before it but for the value itself. Work is
what weights make of samples; the rest (masks, positions, sizes) is computed again behind the cut, for the samples that go on. A
residual stream is a cut between its blocks, and not inside one.

Source: dominators of a flow graph (E. Lowry, C. Medlock, "Object code optimization", Communications of the ACM 12, 1969); in a
graph without cycles one pass in order finds those of the output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import fx, nn

from dendrofx.graph.shapes import tensors

CUT = "at_cut"  # the input of a rest that takes the value at the cut; of a rest of a rest `at_cut2`


@dataclass(frozen=True)
class Cut:
    """A place where samples may leave.

    Attributes:
        after: what was computed before it: the last module with weights, or at an input its name.
        node: name of the node whose value goes on.
        depth: modules with weights before it.
    """

    after: str
    node: str
    depth: int


def find_cuts(gm: fx.GraphModule, is_sample: Callable[[fx.Node], bool]) -> list[Cut]:
    """Return the cuts of a graph, in order: of several behind the same work the last.

    Args:
        gm: a captured module.
        is_sample: whether a node's value is a tensor of floats with samples on axis 0.

    Example:
        >>> [cut.after for cut in find_cuts(capture(model, x, shapes=True), lambda node: True)]
        ['x', 'stem', 'blocks.0.fc2', 'blocks.1.fc2', 'blocks.2.fc2']
    """
    work = working_nodes(gm)
    found: dict[int, Cut] = {}
    inputs = [n for n in gm.graph.nodes if n.op == "placeholder" and _feeds(n, work)]
    if len(inputs) == 1 and is_sample(inputs[0]):
        found[0] = Cut(str(inputs[0].target), inputs[0].name, 0)
    depth, after = 0, ""
    for node, alone in _crossings(gm, work):
        if layer := _layer(gm, node):
            depth, after = depth + 1, layer
        if alone and depth and is_sample(node):
            found[depth] = Cut(after, node.name, depth)
    deepest = sum(bool(_layer(gm, n)) for n in work)
    return [cut for d, cut in sorted(found.items()) if d < deepest]


def working_nodes(gm: fx.GraphModule) -> set[fx.Node]:
    """Return the nodes that depend on weights and on samples, which a size of the input does not tell."""
    weighted: set[fx.Node] = set()
    sampled: set[fx.Node] = set()
    for node in gm.graph.nodes:
        if _has_weights(gm, node) or any(n in weighted for n in node.all_input_nodes):
            weighted.add(node)
        if node.op == "placeholder" or any(n in sampled and tensors(n) for n in node.all_input_nodes):
            sampled.add(node)
    return weighted & sampled


def halves(gm: fx.GraphModule, cut: Cut) -> tuple[fx.Graph, fx.Graph]:
    """Return the graph up to a cut, whose output is the cut's value, and the graph behind it.

    The second takes all inputs of the model and last the value, `at_cut`; what is no work it computes from the inputs that it gets.

    Args:
        gm: whose graph is left as it is.
        cut: one of `find_cuts`.
    """
    at = next(n for n in gm.graph.nodes if n.name == cut.node)
    output = next(n for n in gm.graph.nodes if n.op == "output")
    first, rest = fx.Graph(), fx.Graph()
    copied = _copied(first, gm, _ancestors(at, None) | {at}, {})
    first.output(copied[at])
    given: dict[fx.Node, fx.Node] = {}
    needed = _ancestors(output, at)
    inputs = [n for n in gm.graph.nodes if n.op == "placeholder"]
    for node in inputs:
        given[node] = rest.placeholder(str(node.target), type_expr=node.type)
    cuts = sum(str(n.target).startswith(CUT) for n in inputs)
    given[at] = rest.placeholder(CUT if not cuts else f"{CUT}{cuts + 1}")
    copied = _copied(rest, gm, needed - {at}, given)
    rest.output(fx.node.map_arg(output.args[0], lambda n: copied[n]))
    return first, rest


def _copied(
    graph: fx.Graph, gm: fx.GraphModule, needed: set[fx.Node], copied: dict[fx.Node, fx.Node]
) -> dict[fx.Node, fx.Node]:
    """Copy the needed nodes, and all inputs, into a graph; return what became of each."""
    for node in gm.graph.nodes:
        if node not in copied and (node in needed or node.op == "placeholder"):
            copied[node] = graph.node_copy(node, lambda n: copied[n])
    return copied


def _ancestors(node: fx.Node, stop: fx.Node | None) -> set[fx.Node]:
    """Return all nodes that a node depends on, without what stands before `stop`."""
    found: set[fx.Node] = set()
    left = [node]
    while left:
        for before in left.pop().all_input_nodes:
            if before not in found:
                found.add(before)
                if before is not stop:
                    left.append(before)
    return found


def _crossings(gm: fx.GraphModule, work: set[fx.Node]) -> Iterator[tuple[fx.Node, bool]]:
    """Yield each working node, and whether it alone is read by the work after it, which all depends on it."""
    order = {node: i for i, node in enumerate(gm.graph.nodes)}
    last = {node: max((order[u] for u in node.users), default=-1) for node in work}
    sources = [order[n] for n in work if not any(i in work for i in n.all_input_nodes) and last[n] >= 0]
    latest = max(sources, default=-1)
    live: set[fx.Node] = set()
    for node in gm.graph.nodes:
        if node not in work:
            continue
        live = {n for n in live if last[n] > order[node]} | {node}
        yield node, len(live) == 1 and order[node] >= latest and last[node] > order[node]


def _feeds(node: fx.Node, work: set[fx.Node]) -> bool:
    """Return whether work reads an input, itself or through nodes that are none."""
    left, seen = [node], {node}
    while left:
        for user in left.pop().users:
            if user in work:
                return True
            if user not in seen:
                seen.add(user)
                left.append(user)
    return False


def _layer(gm: fx.GraphModule, node: fx.Node) -> str:
    """Return the name of the layer that a node is, one with a matrix or more of weights; else nothing."""
    if node.op == "call_module":
        wide = any(p.dim() > 1 for p in gm.get_submodule(str(node.target)).parameters())
        return str(node.target) if wide else ""
    weights = [str(n.target) for n in node.all_input_nodes if n.op == "get_attr" and _dimensions(gm, n) > 1]
    return weights[0].removesuffix(".weight") if weights and node.op == "call_function" else ""


def _has_weights(gm: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return any(True for _ in gm.get_submodule(str(node.target)).parameters())
    return node.op == "get_attr" and _dimensions(gm, node) > 0


def _dimensions(gm: fx.GraphModule, node: fx.Node) -> int:
    """Return how many axes the parameter has that a node reads; 0 where it reads none."""
    value: object = gm
    for name in str(node.target).split("."):
        value = getattr(value, name)
    return value.dim() if isinstance(value, nn.Parameter) else 0
