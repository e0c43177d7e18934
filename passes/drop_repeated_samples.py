"""Run a whole graph on distinct samples, wherever in the batch the others are.

    %y = ...(%x, %mask)                      %runs          = sample_runs([%x, %mask])
                                             %x_distinct    = distinct_rows(%x, %runs, 0)
    return %y                         ->     %mask_distinct = distinct_rows(%mask, %runs, 0)
                                             %y             = ...(%x_distinct, %mask_distinct)
                                             %y_expanded    = expand_runs(%y, %moved, 0)
                                             return %y_expanded

1. Every output has a value per sample on its first axis, which depends on that sample alone: whoever calls the pass has proved it
   (`rows/samples.py`), of the graph as it was captured; what other passes made of it since is inside.
2. In a call in which too few samples repeat every crossing hands on what it is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import fx

from dendrofx.errors import PassError
from dendrofx.passes.base import Change, Pass, PassResult
from dendrofx.plan.entries import WHOLE_SAMPLES
from dendrofx.runtime.repeats import all_rows, distinct_rows, expand_runs, match_runs, sample_runs
from dendrofx.values.meta import MACS, RUNS, SHAPES


@dataclass(frozen=True)
class DropRepeatedSamples(Pass):
    """Claim: nothing but the search for repeats reads an input that carries samples.

    Args:
        batched: names of these inputs.
        macs: multiply-adds per sample of the graph, see `rows/regions.py`.
    """

    batched: tuple[str, ...]
    macs: tuple[tuple[int, tuple[str, ...]], ...] = ()

    def run(self, gm: fx.GraphModule) -> PassResult:
        """See `Pass.run`."""
        graph = gm.graph
        inputs = [n for n in graph.nodes if n.op == "placeholder"]
        output = next(n for n in graph.nodes if n.op == "output")
        batched = [n for n in inputs if str(n.target) in self.batched]
        with graph.inserting_after(inputs[-1]):
            runs = graph.create_node("call_function", sample_runs, (batched,), name="sample_runs")
        runs.meta.update({RUNS: WHOLE_SAMPLES, MACS: list(self.macs)})
        at = runs
        for node in batched:
            with graph.inserting_after(at):
                at = graph.create_node("call_function", distinct_rows, (node, runs, 0), name=f"{node.name}_distinct")
            at.meta.update({k: v for k, v in node.meta.items() if k == SHAPES})
            node.replace_all_uses_with(at, delete_user_cb=lambda user, own=at: user not in (own, runs))
        with graph.inserting_before(output):
            rows = graph.create_node("call_function", all_rows, (runs,), name="rows")
            moved = graph.create_node("call_function", match_runs, (runs, rows), name="samples_to_rows")

            def expanded(node: fx.Node) -> Any:  # noqa: ANN401
                return graph.create_node("call_function", expand_runs, (node, moved, 0), name=f"{node.name}_expanded")

            output.args = fx.node.map_arg(output.args, expanded)
        return PassResult(gm, (Change("graph", "runs on distinct samples", (runs.name,)),))

    def ensures(self, gm: fx.GraphModule) -> None:
        """See `Pass.ensures`."""
        for node in [n for n in gm.graph.nodes if n.op == "placeholder" and str(n.target) in self.batched]:
            if other := [u for u in node.users if u.target not in (sample_runs, distinct_rows)]:
                raise PassError(f"%{other[0].name} reads %{node.name}, whose samples may repeat")
