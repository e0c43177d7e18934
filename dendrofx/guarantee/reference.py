"""The original inside a transformed module: what its full branches compute, and which samples it left to the light ones."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from dendrofx.calling import CALL
from dendrofx.cascade.graph import cascade_parts
from dendrofx.errors import InputError
from dendrofx.inputs import Inputs
from dendrofx.module import RoutedModule, graph_names, set_tolerances, tolerances
from dendrofx.outputs import flatten


class Reference:
    """What a transformed module would have computed without light branches.

    Args:
        module: what `transform` returned.

    Raises:
        InputError: anything else.
    """

    def __init__(self, module: nn.Module) -> None:
        if not isinstance(module, RoutedModule):
            raise InputError(f"a shadow audit needs the module that transform returned, got a {type(module).__name__}")
        self.module = module
        self.cascade = cascade_parts(module)
        self.exact = module
        if self.cascade is None:
            self.exact = copy.deepcopy(module)
            set_tolerances(self.exact, dict.fromkeys(graph_names(self.exact).values(), 0.0))

    def take(self, inputs: Inputs, index: Tensor) -> Inputs:
        """The samples at `index`, as the graph takes them."""
        form = self.module.meta.get(CALL)
        plain = inputs if form is None else form.plain(inputs)
        return plain.take(index)

    def module_output(self, inputs: Inputs) -> Any:  # noqa: ANN401
        """What the module gives, as the graph returns it."""
        return inputs.call(self.module.forward)

    def full(self, inputs: Inputs) -> Any:  # noqa: ANN401
        """What the full branches give, in the same form."""
        if self.cascade is None:
            return inputs.call(self.exact.forward)
        found = self.cascade[2].full([*inputs.args, *(v for _, v in inputs.kwargs)])
        like = self.module_output(inputs)
        return flatten(like)[1].build(found)

    def easy(self, inputs: Inputs) -> Tensor:
        """bool[samples]: those that keep what light branches made of them; at block scope any of them may."""
        if self.cascade is None:
            return torch.ones(inputs.samples, dtype=torch.bool)
        light, gate, _ = self.cascade
        outputs = light.forward([*inputs.args, *(v for _, v in inputs.kwargs)])
        place = next(int(n.args[1]) for n in self.module.graph.nodes if n.name == "decision")
        easy: Tensor = gate(outputs[place]) < tolerances(self.module)["model"]
        return easy
