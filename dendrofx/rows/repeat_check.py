"""Repeated rows by experiment: a rewritten graph computes what the captured one does, however rows of its inputs repeat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, fx

from dendrofx.errors import PassError
from dendrofx.graph.show import first_line
from dendrofx.rows.difference import difference
from dendrofx.rows.rules import is_getitem
from dendrofx.values import numerics
from dendrofx.values.inputs import Inputs
from dendrofx.values.outputs import flatten

ROWS = 8  # of the batches that are tried
# Which of these rows each row is a copy of.
PATTERNS = {
    "one run": [0] * ROWS,
    "three runs": [0, 0, 0, 1, 1, 2, 2, 2],
    "a run among others": [0, 1, 1, 1, 1, 1, 1, 2],
    "no run": list(range(ROWS)),
}


@torch.no_grad()
def check_repeats(
    captured: fx.GraphModule, gm: fx.GraphModule, groups: Mapping[fx.Node, str], example: Inputs
) -> float:
    """Return the largest difference of an output from the captured graph's, relative to its largest value.

    Args:
        captured: the original.
        gm: rewritten.
        groups: which sources of the original are compared together, by node.
        example: inputs as both take them.

    Raises:
        PassError: more than rounding, or the rewritten graph alone fails; names the output and what was repeated.
    """
    allowed = numerics.rounding(*{p.dtype for p in captured.parameters() if p.is_floating_point()})
    worst, largest = 0.0, dict[str, Tensor]()
    for what, inputs in variants(groups, example):
        try:
            wanted, form = flatten(inputs.call(captured))
        except Exception:  # what the model does not take
            continue
        try:
            got, _ = flatten(inputs.call(gm))
        except Exception as error:
            raise PassError(f"on distinct rows, {what}: {first_line(error)}") from error
        for name, a, b in zip(form.names, wanted, got, strict=True):
            largest.setdefault(name, a)  # where all rows are equal, a value less its mean over rows is rounding alone
            far = _far(a, b, largest[name])
            if not far <= allowed:
                raise PassError(
                    f"on distinct rows, output '{name}' is {far:.2g} of its largest value away, with {what}"
                )
            worst = max(worst, far)
    return worst


def _far(a: Tensor, b: Tensor, example: Tensor) -> float:
    """Return how far apart two values are, relative to the largest of the first and of the example's."""
    if a.shape != b.shape:
        return torch.inf
    return min(difference(a, b), difference(a, b, example))


def variants(groups: Mapping[fx.Node, str], example: Inputs) -> Iterator[tuple[str, Inputs]]:
    """Yield the example, and batches in which the rows of one group, or of all inputs, repeat, each with what repeats."""
    yield "the example", example
    batch = example.take(torch.arange(ROWS) % example.samples)
    for name, pattern in PATTERNS.items():
        copied = torch.tensor(pattern)
        yield f"{name} of every input", batch.take(copied)
        for group in dict.fromkeys(groups.values()):
            nodes = [n for n, g in groups.items() if g == group]
            yield f"{name} of {group}", _repeated(batch, nodes, copied)


def _repeated(batch: Inputs, nodes: Sequence[fx.Node], copied: Tensor) -> Inputs:
    """Return inputs in which rows of some sources are copies of others."""
    values = dict(batch.kwargs)
    for node in nodes:
        if node.op == "placeholder":
            values[str(node.target)] = values[str(node.target)].index_select(0, copied)
            continue
        picks = node.all_input_nodes[0] if is_getitem(node) else node
        name = str(picks.all_input_nodes[0].target)
        values[name] = values[name].clone()
        columns = picks.target(values[name], *picks.args[1:], **picks.kwargs)  # type: ignore[operator]  # a view
        columns = columns[node.args[1]] if is_getitem(node) else columns
        columns.copy_(columns.index_select(0, copied))
    return Inputs((), tuple(values.items()), batch.shared)


def source_values(gm: fx.GraphModule, nodes: Sequence[fx.Node], inputs: Inputs) -> list[Tensor]:
    """Return the values of sources, inputs or columns of them."""
    graph = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    graph.graph_copy(gm.graph, copied)
    graph.output([copied[n] for n in nodes])
    made = fx.GraphModule(gm, graph)
    graph.eliminate_dead_code()
    made.recompile()
    with torch.no_grad():
        values: list[Tensor] = inputs.call(made)
    return values
