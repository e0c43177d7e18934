"""Outputs of models on the sets of samples that did not fit them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from dendrofx.errors import InputError
from dendrofx.values.covered import Covered
from dendrofx.values.drop_in import graph_level
from dendrofx.values.inputs import Inputs
from dendrofx.values.outputs import flatten


@torch.no_grad()
def picks(module: fx.GraphModule, batches: Sequence[Inputs], covered: Covered) -> Tensor:
    """Return the one output that is covered, of all samples of batches whose shared inputs are marked: [N, ...].

    Raises:
        InputError: it has another shape in another batch.
    """
    found = [covered.pick(b.call(graph_level(module)), b.samples)[0] for b in batches]
    if len({t.shape[1:] for t in found}) > 1:
        raise InputError(
            "scope='model' needs an output with one shape per sample, such as logits or a pooled vector; the model's is shaped"
            f" {' and '.join(str(list(s)) for s in sorted({tuple(t.shape[1:]) for t in found}))}: name another with output="
        )
    return torch.cat(found)


def fixed_outputs(model: fx.GraphModule, batches: Sequence[Inputs]) -> list[Tensor]:
    """Return all outputs of a model over batches, [n, ...] each.

    Raises:
        InputError: one is no float, or has another shape per sample in another batch: no head can predict it.
    """
    parts: list[list[Tensor]] = []
    names: tuple[str, ...] = ()
    for batch in batches:
        found, form = flatten(batch.call(graph_level(model)))
        parts.append(found)
        names = tuple(form.names)
    joined = []
    for name, column in zip(names, zip(*parts, strict=True), strict=True):
        alike = len({t.shape[1:] for t in column}) == 1 and all(
            t.dim() > 0 and len(t) == b.samples for t, b in zip(column, batches, strict=True)
        )
        if not alike or not column[0].is_floating_point():
            raise InputError(f"an exit predicts floats of one shape per sample, which output '{name}' is not")
        joined.append(torch.cat(column))
    return joined


@dataclass(frozen=True)
class Sets:
    """One model's outputs on the sets that it did not fit: gate, search and test, each [N, ...]."""

    gate: Tensor
    search: Tensor
    test: Tensor
