"""Transformers from configurations, each captured, routed and scripted once for all tests."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass

from torch import fx, nn

from benchmarks.models import hf
from dendrofx.graph.capture import Captured, capture
from dendrofx.graph.find_sites import find_sites
from dendrofx.lowering.script import script
from dendrofx.passes import run_passes
from dendrofx.rewriting.counted import routed_nodes
from dendrofx.rewriting.module import RoutedModule
from dendrofx.rewriting.tolerances import tolerances
from dendrofx.values.calling import CallForm
from dendrofx.values.inputs import Inputs
from dendrofx.values.meta import CALL, CAPTURE
from tests.check import five_passes

FAMILIES = hf.families()


@dataclass(frozen=True)
class Family:
    """A model, its graph, the graph with every site routed at tolerance 0, and both scripted."""

    model: nn.Module
    gm: fx.GraphModule
    routed: RoutedModule
    scripted: nn.Module
    scripted_routed: nn.Module

    @property
    def captured(self) -> Captured:
        captured: Captured = self.gm.meta[CAPTURE]
        return captured

    @property
    def form(self) -> CallForm:
        form: CallForm = self.gm.meta[CALL]
        return form


@functools.cache
def family(name: str) -> Family:
    model = FAMILIES[name]()
    gm = capture(model, Inputs.of(hf.example_inputs(name, 3, 12)))
    routed = RoutedModule(gm, copy.deepcopy(gm.graph))
    routed.meta.update(gm.meta)
    run_passes(routed, five_passes(routed))
    routed.eval().requires_grad_(False)
    assert len(list(routed_nodes(routed))) == len(find_sites(gm))
    assert not any(tolerances(routed).values())
    return Family(model, gm, routed, script(gm), script(routed))
