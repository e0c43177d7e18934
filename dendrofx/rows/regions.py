"""Parts of a marked graph that `DropDeadRows` treats alike."""

from __future__ import annotations

import torch
from torch import fx

from dendrofx.graph.shapes import tensors
from dendrofx.rows.layout import TOKENS
from dendrofx.values.meta import ROWS

aten = torch.ops.aten
# Row-wise products: what live rows spare.
_PRODUCTS = (aten.linear, aten.matmul)


def is_product(node: fx.Node) -> bool:
    """Tell whether a row-wise node is a product with weights."""
    return node.op == "call_module" or (node.op == "call_function" and node.target in _PRODUCTS)


def around_products(gm: fx.GraphModule) -> tuple[set[fx.Node], set[fx.Node]]:
    """Return row-wise nodes with a product among their descendants, and those with one among their ancestors; products are in both.

    What lies between is reached through row-wise nodes alone.
    """
    row_wise = {n for n in gm.graph.nodes if n.meta[ROWS].row_wise}
    above = {n for n in row_wise if is_product(n)}
    below = set(above)
    for node in gm.graph.nodes:
        if node in row_wise and any(n in below for n in node.all_input_nodes):
            below.add(node)
    for node in reversed(gm.graph.nodes):
        if node in row_wise and any(n in above for n in node.users):
            above.add(node)
    return above, below


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
