"""Second moments of what the Linears of each site take in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import fx

from dendrofx.graph.block import block_of, finite_rows, linear_input
from dendrofx.graph.record import node_values
from dendrofx.graph.sites import Site
from dendrofx.statistics.moments import Moments
from dendrofx.values.calibration import Calibration
from dendrofx.values.inputs import Inputs

# Hidden values of so many rows are held at a time.
ROWS = 4096
# Sites that take in or hide more numbers than this are fitted to the rows that were kept: a square of them is 128 MB.
WIDEST = 4096


@torch.no_grad()
def site_moments(
    gm: fx.GraphModule, sites: Mapping[str, tuple[str, ...]], batch: Inputs
) -> dict[str, tuple[Moments, ...]]:
    """Run a batch; return by site the moments of what each of its Linears takes in, of rows on which all of it is finite.

    Args:
        gm: the captured module.
        sites: the names of their nodes, by site.
        batch: as the graph takes it.
    """
    by_name = {n.name: n for n in gm.graph.nodes}
    inputs = {site: linear_input(by_name[nodes[0]]).name for site, nodes in sites.items()}
    values, found = node_values(gm, inputs.values(), batch), {}
    for site, node in inputs.items():
        block, value = block_of(gm, sites[site]), values[node]
        parts = [finite_rows(block, rows).inputs for rows in value.reshape(-1, value.size(-1)).split(ROWS)]
        by_linear = [[Moments.of(rows) for rows in of] for of in zip(*parts, strict=True)]
        found[site] = tuple(sum(of[1:], of[0]) for of in by_linear)
    return found


def fit_moments(
    data: Calibration | None, gm: fx.GraphModule, sites: Iterable[Site]
) -> Mapping[str, tuple[Moments, ...]]:
    """Return the moments of a dataset's fitting samples by site, where a calibration is one's; else of no site."""
    if data is None or data.statistics is None:
        return {}
    narrow = {site.name: site.nodes for site in sites if max(site.widths[:-1]) <= WIDEST}
    return data.statistics.moments(gm, narrow) if narrow else {}
