"""Slopes: what an error of each site does to the model's output, measured with its rows light and all others as they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from dendrofx.gates import AlwaysLight, SiteRows
from dendrofx.graph.block import BlockData
from dendrofx.machine.progress import progress
from dendrofx.rewriting.counted import graph_names
from dendrofx.rewriting.rewrite import Branches, rewrite
from dendrofx.rewriting.tolerances import set_tolerances
from dendrofx.search.choose import Candidate
from dendrofx.subject import Subject
from dendrofx.values.covered import Covered
from dendrofx.values.inputs import Inputs
from dendrofx.values.measure import deviations, outputs, worst


@dataclass(frozen=True)
class Probe:
    """A light branch to measure a site's slope with.

    Attributes:
        branches: it, and the full branch that other rows take.
        error: its mean relative output error.
    """

    branches: Branches
    error: float


def probe_of(found: Sequence[Candidate], start: float) -> Probe:
    """Return the candidate that errs least of those that err more than choosing starts at, or most of all."""
    by_error = sorted(found, key=lambda c: float(c.error.mean()))
    best = next((c for c in by_error if float(c.error.mean()) > start), by_error[-1])
    return Probe(best.branches, float(best.error.mean()))


def error_weights(
    subject: Subject, probes: Mapping[str, Probe], batches: Sequence[Inputs], covered: Covered | None
) -> dict[str, float]:
    """Return each site's error that moves the model's output by one unit of deviation.

    Of several outputs, each sample's is the one that moves most.

    Args:
        subject: its graph and sites.
        probes: by site.
        batches: samples that fitted light branches.
        covered: the outputs that count.
    """
    whole = sum(n.op not in ("placeholder", "output") for n in subject.graph.graph.nodes)
    if not probes or any(whole == len(s.nodes) for s in subject.sites):  # the site is the whole model
        return dict.fromkeys(probes, 1.0)
    gate = AlwaysLight().fit(SiteRows(BlockData(nn.Sequential()), nn.Identity()))
    branches = {name: replace(p.branches, gate_form=AlwaysLight(), gate=gate) for name, p in probes.items()}
    gm = rewrite(subject.graph, [s for s in subject.sites if s.name in probes], branches)
    names = graph_names(gm)
    reference, weights = outputs(subject.graph, batches, covered), {}
    for site in progress(names, "weighing sites", "site"):
        error = probes[site].error
        if not (error > 0 and math.isfinite(error)):
            weights[site] = 1.0
            continue
        set_tolerances(gm, {name: float(other == site) for other, name in names.items()})
        far = deviations(reference, outputs(gm, batches, covered))
        slope = float(worst(far).mean()) / error
        weights[site] = 1 / (min(max(slope, 1e-3), 1e3) if math.isfinite(slope) else 1e3)
    return weights


def first_samples(batches: Sequence[Inputs], samples: int) -> list[Inputs]:
    """Return the first batches, until they hold that many samples."""
    kept: list[Inputs] = []
    for batch in batches:
        if sum(b.samples for b in kept) >= samples:
            break
        kept.append(batch)
    return kept
