"""What the cascade of a setting is made from."""

from __future__ import annotations

from torch import fx, nn

from dendrofx.graph.cuts import CUT
from dendrofx.rewriting.module import RoutedModule
from dendrofx.rewriting.recipe import CascadeRecipe
from dendrofx.search.cascade.lights import LightModel
from dendrofx.search.cascade.models import ModelSpace
from dendrofx.search.cascade.proved import Proved
from dendrofx.search.cascade.search import Gated


def cascade_recipe(space: ModelSpace, pair: Gated) -> CascadeRecipe:
    """Return what the cascade of a light model with its gate is made from."""
    proved, light = space.proved, pair.light
    full: fx.GraphModule = space.full_of(pair.full).module
    rest: fx.GraphModule | CascadeRecipe | None = None if light.rest is None else light.rest.module
    if pair.later is not None:
        assert light.rest is not None
        rest = then_recipe(light.rest.module, pair.later.light, pair.later.gate, proved)
    return CascadeRecipe(
        proved.subject.original,
        light.module,
        full if rest is None else rest,
        pair.gate,
        proved.batched,
        proved.decision,
        proved.finite,
        None if rest is None else full,
    )


def then_recipe(rest: RoutedModule, light: LightModel, gate: nn.Module, proved: Proved) -> CascadeRecipe:
    """Return what a second exit is made from: in the rest of a model behind a first one."""
    assert light.rest is not None
    batched = (*proved.batched, CUT)
    return CascadeRecipe(rest, light.module, light.rest.module, gate, batched, proved.decision, (), rest)
