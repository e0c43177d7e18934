"""What a rewritten module was made from: enough to make it again, at other tolerances or with other gates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, fx, nn

from dendrofx.gates.controls import NoGate
from dendrofx.graph.sites import Site
from dendrofx.rewriting.cascade import build
from dendrofx.rewriting.module import RoutedModule
from dendrofx.rewriting.rewrite import Branches, rewrite, without_gates
from dendrofx.rewriting.tolerances import set_tolerances
from dendrofx.values.counts import CASCADE


@dataclass(frozen=True)
class Recipe:
    """A graph with routed sites.

    Attributes:
        captured: the module before the rewrite, exact forms in it.
        sites: the routed sites.
        branches: by site name.
        scores: f32[N] by site name, on the rows that branches were chosen on, in units of the multiplier.
        weights: by site name; a site's tolerance is the multiplier times its weight.
    """

    captured: fx.GraphModule
    sites: tuple[Site, ...]
    branches: Mapping[str, Branches]
    scores: Mapping[str, Tensor]
    weights: Mapping[str, float]

    def build(self, tolerances: Mapping[str, float] | None = None) -> RoutedModule:
        """Return the module, with tolerances by site; all of them are 0 by default. Above 0, a site of `NoGate` is light alone."""
        module = rewrite(self.captured, self.sites, self.branches)
        values = tolerances or {}
        set_tolerances(module, values)
        light = [n for n, b in self.branches.items() if isinstance(b.gate_form, NoGate) and values.get(n, 0.0) > 0]
        return without_gates(module, light) if light else module


@dataclass(frozen=True)
class CascadeRecipe:
    """A light and a full model with a gate.

    Attributes:
        captured: the module before the rewrite.
        light, full: the two models; behind an exit `full` is the rest of `whole`, which goes on from the cut, or a cascade in it.
        gate: maps the decision output of the light one to a score, f32[N].
        batched: names of the inputs that carry samples; finite: of those whose samples go full where they are not finite.
        decision: which output the gate reads.
    """

    captured: fx.GraphModule
    light: RoutedModule
    full: fx.GraphModule | CascadeRecipe
    gate: nn.Module
    batched: tuple[str, ...]
    decision: int
    finite: tuple[str, ...] = ()
    whole: fx.GraphModule | None = None

    def build(self, tolerances: Mapping[str, float] | None = None) -> RoutedModule:
        """Return the cascade, at a tolerance; 0 by default."""
        return self.with_gate(self.gate, tolerances)

    def with_gate(self, gate: nn.Module, tolerances: Mapping[str, float] | None = None) -> RoutedModule:
        """Return it with another gate; a cascade behind its exit keeps its own, at the same tolerance."""
        full = self.full.build(tolerances) if isinstance(self.full, CascadeRecipe) else self.full
        carried = int(self.whole is not None)
        module = build(self.captured, self.light, gate, full, self.batched, self.decision, self.finite, carried)
        set_tolerances(module, tolerances or {CASCADE: 0.0})
        return module
