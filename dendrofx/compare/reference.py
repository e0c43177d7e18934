"""The original beside a transformed module, and which samples the module left to its light model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dendrofx.errors import InputError
from dendrofx.finish import RECIPE
from dendrofx.rewriting.cascade import cascade_parts
from dendrofx.rewriting.module import RoutedModule, tolerances
from dendrofx.search.cascade.skills import light_outputs
from dendrofx.values.calling import CALL
from dendrofx.values.drop_in import graph_level
from dendrofx.values.inputs import Inputs


class Reference:
    """What the original model would have computed.

    Args:
        module: what `transform` returned.

    Raises:
        InputError: anything else, or a module that does not keep the original (it was loaded from a file).
    """

    def __init__(self, module: nn.Module) -> None:
        if not isinstance(module, RoutedModule):
            raise InputError(
                f"a shadow audit needs the module that transform returned, which holds the original, got a {type(module).__name__}"
            )
        if module.meta.get(RECIPE) is None:
            raise InputError("the module does not hold the original: audit the one that transform returned")
        self.module, self.captured = module, module.meta[RECIPE].captured
        self.cascade = cascade_parts(module)

    def plain(self, inputs: Inputs) -> Inputs:
        """Inputs as the graph takes them; those that all samples share are not cut."""
        form = self.module.meta.get(CALL)
        plain = inputs if form is None else form.plain(inputs)
        if self.cascade is None:
            return plain
        names = [str(n.target) for n in self.module.graph.nodes if n.op == "placeholder"]
        shared = frozenset(n for n, batched in zip(names, self.cascade[2].batched, strict=True) if not batched)
        return replace(plain, shared=shared)

    def routed(self, inputs: Inputs) -> Any:  # noqa: ANN401
        """What the module gives, as the graph returns it."""
        return inputs.call(graph_level(self.module))

    def original(self, inputs: Inputs) -> Any:  # noqa: ANN401
        """What the original gives, in the same form."""
        return inputs.call(graph_level(self.captured))

    def easy(self, inputs: Inputs) -> Tensor:
        """bool[samples]: those that keep what light branches made of them; at block scope any of them may."""
        if self.cascade is None:
            return torch.ones(inputs.samples, dtype=torch.bool)
        _, score = light_outputs(self.module, inputs)
        easy: Tensor = score < tolerances(self.module)["model"]
        return easy
