"""Recording the rows that reach each site."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from dendrofx.errors import InputError
from dendrofx.graph.block import linear_input
from dendrofx.graph.show import first_line
from dendrofx.graph.sites import Site
from dendrofx.values.inputs import Inputs

# Rows kept per site and set: enough for second moments of wide layers, and a bound on memory. Models of many sites keep fewer, in
# as many bytes for all sites together, but never less than the other figure.
MOST_ROWS = 2048
MOST_BYTES = 2**26
FEWEST_ROWS = 256
# Bytes of rows, of all sets, that are held at a time where sites are looked at in turn; for the next ones the model runs again.
GROUP_BYTES = 2**25


class _Recorder(fx.Interpreter):
    """Runs a graph as far as the last of the nodes it is asked for, and keeps their tensors in `values`."""

    def __init__(self, gm: fx.GraphModule, wanted: set[str]) -> None:
        super().__init__(gm)
        self.wanted = wanted
        self.values: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401
        """Run one node, as long as one is wanted."""
        if len(self.values) == len(self.wanted):
            return None
        value = super().run_node(n)
        if n.name in self.wanted and isinstance(value, Tensor):
            self.values[n.name] = value
        return value


def node_values(gm: fx.GraphModule, names: Iterable[str], batch: Inputs) -> dict[str, Tensor]:
    """Run a graph on a batch, as far as it needs, and return the tensors of the nodes of these names.

    Raises:
        InputError: the graph refuses the batch, as an embedding does ids beyond its rows.
    """
    recorder = _Recorder(gm, set(names))
    try:
        recorder.run(*positional(gm, batch))
    except (IndexError, RuntimeError) as error:
        raise InputError(f"the model rejects {batch}, though it took others alike: {first_line(error)}") from error
    return recorder.values


@dataclass(frozen=True)
class Recorded:
    """What reached each site, by its name.

    Attributes:
        rows: f32[N, in], N at most 2048 or so, a seeded choice spread evenly over the batches.
        per_sample: rows that one sample of the model makes at the site.
    """

    rows: dict[str, Tensor]
    per_sample: dict[str, float]


def record_in_turn(
    gm: fx.GraphModule, sites: Sequence[Site], sets: Sequence[Sequence[Inputs]], seed: int
) -> Iterator[tuple[Site, list[Recorded]]]:
    """Give the sites in turn, each with the rows of every set that reach it: those that `record_rows` keeps of all sites at once.

    Only a few sites' rows are held at a time.
    """
    most = _most_rows(sites)
    for group in _groups(sites, GROUP_BYTES // max(4 * most * len(sets), 1)):
        recorded = [record_rows(gm, group, batches, seed, most) for batches in sets]
        yield from ((site, recorded) for site in group)


def _groups(sites: Sequence[Site], width: int) -> Iterator[list[Site]]:
    """Give neighbours whose inputs are together at most `width` wide, at least one."""
    group: list[Site] = []
    for site in sites:
        if group and sum(s.widths[0] for s in [*group, site]) > width:
            yield group
            group = []
        group.append(site)
    if group:
        yield group


@torch.no_grad()
def record_rows(
    gm: fx.GraphModule, sites: Sequence[Site], batches: Sequence[Inputs], seed: int, most_rows: int | None = None
) -> Recorded:
    """Run the batches and keep the rows that reach each site.

    Args:
        gm: the captured module.
        sites: whose inputs to record.
        batches: what to run.
        seed: of the choice.
        most_rows: of a site; by default as many as the sites leave room for.
    """
    by_name = {n.name: n for n in gm.graph.nodes}
    inputs = {s.name: linear_input(by_name[s.nodes[0]]).name for s in sites}
    # a generator per site: the rows kept of one do not depend on which others are recorded
    draws = {s.name: torch.Generator().manual_seed((seed + zlib.crc32(s.name.encode())) % 2**63) for s in sites}
    most = -(-(_most_rows(sites) if most_rows is None else most_rows) // max(len(batches), 1))
    parts: dict[str, list[Tensor]] = {s.name: [] for s in sites}
    seen = dict.fromkeys(parts, 0)
    for batch in batches:
        values = node_values(gm, inputs.values(), batch)
        for site, node in inputs.items():
            value = values[node]
            rows = value.reshape(-1, value.size(-1))
            seen[site] += len(rows)
            if len(rows) > most:
                rows = rows[torch.randperm(len(rows), generator=draws[site])[:most].sort().values]
            parts[site].append(rows.clone())
    samples = max(sum(b.samples for b in batches), 1)
    return Recorded({site: torch.cat(rows) for site, rows in parts.items()}, {s: n / samples for s, n in seen.items()})


def _most_rows(sites: Sequence[Site]) -> int:
    row_bytes = sum(4 * s.widths[0] for s in sites)
    return min(max(MOST_BYTES // max(row_bytes, 1), FEWEST_ROWS), MOST_ROWS)


def positional(gm: fx.GraphModule, batch: Inputs) -> list[Any]:
    """Return a batch's inputs in the order of the graph's placeholders, defaults filled in."""
    named = dict(batch.kwargs)
    values = list(batch.args)
    for node in [n for n in gm.graph.nodes if n.op == "placeholder"][len(values) :]:
        values.append(named[str(node.target)] if str(node.target) in named else node.args[0])
    return values
