"""What tests of capture compare."""

from typing import Any

import torch
from torch import Tensor, fx, nn

from dendrofx.graph.capture import capture
from dendrofx.graph.find_sites import find_sites
from dendrofx.lowering.script import script
from dendrofx.values.inputs import Inputs
from dendrofx.values.meta import CALL, CAPTURE
from dendrofx.values.outputs import flatten


def same(a: Any, b: Any) -> bool:
    """Two outputs have one form and the same bits."""
    (first, form), (second, other) = flatten(a), flatten(b)
    return form == other and all(map(torch.equal, first, second))


def graph_inputs(gm: nn.Module, inputs: Inputs) -> Inputs:
    """A call's inputs as the graph, or what is scripted from it, takes them."""
    form = getattr(gm, "meta", {}).get(CALL)
    return inputs if form is None else form.plain(inputs)


def exported(model: nn.Module, example: Tensor) -> fx.GraphModule:
    """Captured, and by export."""
    gm = capture(model.eval(), Inputs.of(example))
    assert gm.meta[CAPTURE].way == "export", gm.meta[CAPTURE]
    return gm


def sites(gm: fx.GraphModule) -> tuple[list[str], dict[str, str]]:
    found = find_sites(gm)
    return [s.name for s in found], {r.site: r.reason for r in found.refused}


@torch.no_grad()
def agrees(model: nn.Module, gm: fx.GraphModule, inputs: Inputs) -> bool:
    """The graph and its scripted form give the model's bits."""
    plain = graph_inputs(gm, inputs)
    return same(plain.call(gm), inputs.call(model)) and same(plain.call(script(gm)), inputs.call(model))
