"""The two halves of a model with an exit: up to the cut with a head, and the rest."""

from __future__ import annotations

import operator
from dataclasses import dataclass

from torch import fx, nn

from dendrofx.graph.cuts import CUT, Cut, halves
from dendrofx.rewriting.module import RoutedModule
from dendrofx.runtime.exits import ExitHead
from dendrofx.values.meta import ENTERED

HEAD = "exit_head"


@dataclass(frozen=True)
class Halves:
    """A model, cut.

    Attributes:
        cut: where.
        first: from the model's inputs to the value at the cut.
        rest: from the model's inputs and the value, named `at_cut`, to its outputs.
    """

    cut: Cut
    first: RoutedModule
    rest: RoutedModule

    @staticmethod
    def of(gm: fx.GraphModule, cut: Cut, before_macs: int) -> Halves:
        """Cut a model.

        Args:
            gm: left unchanged; its parameters are shared.
            cut: one of `find_cuts`.
            before_macs: multiply-adds per sample before it.
        """
        first, rest = halves(gm, cut)
        *earlier, value = [n for n in rest.nodes if n.op == "placeholder" and str(n.target).startswith(CUT)]
        for node in earlier:
            node.meta.pop(ENTERED, None)
        value.meta[ENTERED] = before_macs
        return Halves(cut, _module(gm, first), _module(gm, rest))

    def with_head(self, head: ExitHead) -> RoutedModule:
        """Return the first half with a head: from the model's inputs to its outputs, by the head, and the value at the cut."""
        graph = fx.Graph()
        copied: dict[fx.Node, fx.Node] = {}
        graph.graph_copy(self.first.graph, copied)
        last = next(n for n in self.first.graph.nodes if n.op == "output").args[0]
        assert isinstance(last, fx.Node)
        found = graph.call_module(HEAD, (copied[last],))
        outputs = [graph.call_function(operator.getitem, (found, i)) for i in range(len(head.shapes))]
        graph.output((*outputs, copied[last]))
        root = nn.Module()
        for name, child in self.first.named_children():
            root.add_module(name, child)
        for name, parameter in self.first._parameters.items():
            root.register_parameter(name, parameter)
        for name, buffer in self.first._buffers.items():
            root.register_buffer(name, buffer)
        root.add_module(HEAD, head)
        return _module(root, graph)


def _module(root: nn.Module, graph: fx.Graph) -> RoutedModule:
    return RoutedModule(root, graph).eval().requires_grad_(False)
