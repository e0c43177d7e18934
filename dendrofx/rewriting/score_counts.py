"""Counts of the scores that a routed module's gates give."""

from __future__ import annotations

import torch
from torch import fx

from dendrofx.graph.record import node_values
from dendrofx.rewriting.counted import gated_sites
from dendrofx.statistics.quantiles import ScoreCounts
from dendrofx.values.inputs import Inputs


@torch.no_grad()
def score_counts(gm: fx.GraphModule, batch: Inputs) -> dict[str, ScoreCounts]:
    """Run a batch, as the graph takes it; return the counts of its rows' scores, by routed site."""
    nodes = {site: str(split.args[0]) for site, _, split, _ in gated_sites(gm)}
    values = node_values(gm, nodes.values(), batch)
    return {site: ScoreCounts.of(values[node]) for site, node in nodes.items()}
