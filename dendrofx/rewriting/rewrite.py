"""The rewrite, from a captured module to one with routed sites: five passes, read top to bottom."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import fx, nn

from dendrofx.gates.form import GateForm
from dendrofx.graph.sites import Site
from dendrofx.light.form import LightForm
from dendrofx.passes import AddGate, AddLight, DropGate, MarkSites, OutlineBlock, RouteRows, UseExact, run_passes
from dendrofx.rewriting.module import RoutedModule


@dataclass(frozen=True)
class Branches:
    """What a site is given: the forms, and the modules fitted from them; without a full form, its original block is full."""

    light_form: LightForm
    light: nn.Module
    gate_form: GateForm
    gate: nn.Module
    full_form: LightForm | None = None
    full: nn.Module | None = None


def rewrite(captured: fx.GraphModule, sites: Sequence[Site], branches: Mapping[str, Branches]) -> RoutedModule:
    """Return a new module in which each site is routed; every tolerance is 0.

    It computes the same function, as far as the full branches are the original blocks or exact forms of them.

    Args:
        captured: left unchanged; its parameters are shared.
        sites: the sites to route, all of them in `branches`.
        branches: by site name.
    """
    gm = RoutedModule(captured, copy.deepcopy(captured.graph))
    gm.meta.update(captured.meta)
    run_passes(
        gm,
        [
            MarkSites(tuple(sites)),
            OutlineBlock(),
            AddLight({name: b.light for name, b in branches.items()}),
            AddGate({name: (b.gate_form.reads, b.gate) for name, b in branches.items()}),
            RouteRows({name: b.full for name, b in branches.items() if b.full is not None}),
        ],
    )
    gm.eval()
    gm.requires_grad_(False)
    return gm


def without_gates(module: RoutedModule, sites: Sequence[str], watched: bool = True) -> RoutedModule:
    """Leave out gate and full branch of routed sites, in place; return the module. See `DropGate`."""
    run_passes(module, [DropGate(tuple(sites), watched)])
    return module


def use_exact(captured: fx.GraphModule, sites: Sequence[Site], forms: Mapping[str, nn.Module]) -> fx.GraphModule:
    """Return a new module in which `sites` are computed by exact forms; the captured one itself where there are none.

    Args:
        captured: left unchanged; its parameters are shared.
        sites: those to replace.
        forms: by site name.
    """
    if not sites:
        return captured
    gm = fx.GraphModule(captured, copy.deepcopy(captured.graph))
    gm.meta.update(captured.meta)
    run_passes(gm, [UseExact(tuple(sites), forms)])
    return gm.eval().requires_grad_(False)
