"""How long each node of a graph takes, one by one: what a drawing of it is coloured by."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import fx

from dendrofx.graph.record import positional
from dendrofx.machine.race import race
from dendrofx.values.inputs import Inputs


class _Stopwatch(fx.Interpreter):
    """Runs a graph node by node, and keeps each node's milliseconds."""

    def __init__(self, gm: fx.GraphModule) -> None:
        super().__init__(gm)
        self.spent: dict[str, list[float]] = {n.name: [] for n in gm.graph.nodes}

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401
        start = time.perf_counter()
        value = super().run_node(n)
        self.spent[n.name].append((time.perf_counter() - start) * 1e3)
        return value


@torch.no_grad()
def node_times(
    graphs: Mapping[str, fx.GraphModule], batches: list[Inputs], seconds: float, seed: int
) -> dict[str, dict[str, float]]:
    """Return, by graph and node name, the median milliseconds of a call; the graphs take turns, as in any race."""
    watches = {name: _Stopwatch(gm) for name, gm in graphs.items()}
    calls: dict[str, Callable[[int], object]] = {n: partial(_run, w, batches) for n, w in watches.items()}
    race(calls, seconds, seed, least_rounds=5)
    return {name: {n: statistics.median(ms) for n, ms in w.spent.items() if ms} for name, w in watches.items()}


def _run(watch: _Stopwatch, batches: list[Inputs], number: int) -> object:
    return watch.run(*positional(watch.module, batches[number % len(batches)]))  # type: ignore[arg-type]
