"""Parts of a graph that passes on rows treat alike: products, what is before and behind them, and what a mask is applied in."""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import fx, nn

from dendrofx.graph.shapes import Shape, shape, tensors
from dendrofx.rows.layout import SAMPLES, TOKENS
from dendrofx.values.meta import ROWS

aten = torch.ops.aten
# Row-wise products: what live rows spare.
_PRODUCTS = (aten.linear, aten.matmul)
# Products of samples.
_SAMPLE_PRODUCTS = (aten.linear, aten.matmul, aten.bmm, aten.scaled_dot_product_attention)


def is_product(node: fx.Node) -> bool:
    """Tell whether a row-wise node is a product with weights."""
    return node.op == "call_module" or (node.op == "call_function" and node.target in _PRODUCTS)


def around_products(gm: fx.GraphModule) -> tuple[set[fx.Node], set[fx.Node]]:
    """Return row-wise nodes with a product among their descendants, and those with one among their ancestors; products are in both.

    What lies between is reached through row-wise nodes alone.
    """
    row_wise = {n for n in gm.graph.nodes if n.meta[ROWS].row_wise}
    products = {n for n in row_wise if is_product(n)}
    return ancestors(gm.graph, products, row_wise), descendants(gm.graph, products, row_wise)


def descendants(graph: fx.Graph, nodes: Collection[fx.Node], inside: Collection[fx.Node]) -> set[fx.Node]:
    """Return nodes, and those inside a set that are reached from them through the set alone."""
    found = set(nodes)
    for node in graph.nodes:
        if node in inside and any(n in found for n in node.all_input_nodes):
            found.add(node)
    return found


def ancestors(graph: fx.Graph, nodes: Collection[fx.Node], inside: Collection[fx.Node]) -> set[fx.Node]:
    """Return nodes, and those inside a set that reach them through the set alone."""
    found = set(nodes)
    for node in reversed(graph.nodes):
        if node in inside and any(n in found for n in node.users):
            found.add(node)
    return found


def masked(gm: fx.GraphModule, mask: str, below: set[fx.Node]) -> set[fx.Node]:
    """Return nodes below products that a mask is applied in, and what maps or moves their values alone.

    Their dead rows hold what the mask says, whatever the rows were: masked_fill(%scores, %mask == 0, -inf).

    Args:
        gm: the graph.
        mask: the input.
        below: of `around_products`.
    """
    from_mask = {n for n in gm.graph.nodes if n.op == "placeholder" and str(n.target) == mask}
    found: set[fx.Node] = set()
    for node in gm.graph.nodes:
        rows = [n for n in node.all_input_nodes if tensors(n) and TOKENS in n.meta[ROWS].layout]
        if node not in below:
            if rows and all(n in from_mask for n in rows):
                from_mask.add(node)
        elif not is_product(node) and (any(n in from_mask for n in rows) or (len(rows) == 1 and rows[0] in found)):
            found.add(node)
    return found


def is_sample_product(node: fx.Node, gm: fx.GraphModule) -> bool:
    """Tell whether a node is a product of samples, with weights or with each other."""
    if node.op == "call_module":
        return isinstance(gm.get_submodule(str(node.target)), nn.Linear)
    return node.op == "call_function" and node.target in _SAMPLE_PRODUCTS


def sample_macs(node: fx.Node) -> list[tuple[int, tuple[str, ...]]]:
    """Return the multiply-adds of a product of samples, per sample: numbers to be multiplied with sizes of the input, and added."""
    given = [shape(n) for n in node.args if isinstance(n, fx.Node) and tensors(n)]
    samples, out = node.meta[ROWS].layout.index(SAMPLES), shape(node)
    rows = out[:samples] + out[samples + 1 :]
    if node.target is aten.scaled_dot_product_attention:
        q, k, v = given[:3]
        return [_term((*rows[:-1], k[-2], width)) for width in (q[-1], v[-1])]
    return [_term((*rows, given[0][-1]))]


def _term(sizes: Shape) -> tuple[int, tuple[str, ...]]:
    return math.prod(s for s in sizes if isinstance(s, int)), tuple(s for s in sizes if isinstance(s, str))
