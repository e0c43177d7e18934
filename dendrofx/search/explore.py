"""Exploring: what each site could be given, and what its errors do to the model's output."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

from torch import Tensor, nn

from dendrofx.errors import InputError
from dendrofx.gates import AlwaysLight, SiteRows
from dendrofx.graph.block import BlockData, block_of
from dendrofx.graph.record import Recorded, record_in_turn, record_rows
from dendrofx.graph.sites import Refusal, Site
from dendrofx.machine.memory import return_free_memory
from dendrofx.machine.progress import progress
from dendrofx.request import Request
from dendrofx.rewriting.counted import graph_names
from dendrofx.rewriting.rewrite import rewrite
from dendrofx.rewriting.tolerances import set_tolerances
from dendrofx.search.choose import Candidate, FullFormError, SiteData, candidates, finite_rows
from dendrofx.search.explored import Explored
from dendrofx.subject import Subject
from dendrofx.values.calibration import Calibration
from dendrofx.values.covered import Covered
from dendrofx.values.inputs import Inputs
from dendrofx.values.measure import deviations, outputs, worst

# Samples on which a site's weight on the output is measured: a mean over them, per site.
PROBE_SAMPLES = 1024
# Models of more sites than this are large: less is tried on each of them, on fewer samples.
MANY_SITES, FEW_SAMPLES = 8, 32
UNFITTED = "tuning was interrupted before its light branches and gates were fitted"


def explore(
    subject: Subject,
    request: Request,
    covered: Covered | None,
    interruptible: AbstractContextManager[object] | None = None,
) -> Explored:
    """Fit every candidate of every site.

    Args:
        subject: its graph, selected sites, and calibration; or an example, for what reaches the sites where there is no data.
        request: what the caller asked for.
        covered: the outputs that are measured; None where none is.
        interruptible: a context that Ctrl-C ends, and with it the fitting: the sites left are refused.

    Raises:
        InputError: a full form that the caller named does not fit a site, or without data a light form or gate fits none.
    """
    sites, data = subject.sites, subject.data
    if request.max_deviation == 0:
        return _explore_exact(subject, request.seed)
    sets = [] if data is None else [data.fit, data.gate, data.choose]
    many = len(sites) > MANY_SITES
    refused = {s.name: Refusal(s.name, UNFITTED, s.nodes[-1]) for s in sites}
    found: dict[str, SiteExplored] = {}
    weights: dict[str, float] = {}
    with interruptible or nullcontext():
        recorded = record_in_turn(subject.graph, sites, sets, request.seed)
        for site, rows in progress(recorded, "fitting lights and gates", "site", len(sites)):
            made = _explore(subject, site, rows, request, many)
            del refused[site.name]
            if isinstance(made, SiteExplored):
                found[site.name] = made
            if not isinstance(made, SiteExplored) or not made.candidates:
                reason = made if isinstance(made, str) else made.reason
                refused[site.name] = Refusal(site.name, reason, site.nodes[-1])
            return_free_memory()
        if data is not None:
            samples = _few(data.fit, FEW_SAMPLES if many else PROBE_SAMPLES)
            weights = _weights(subject, _candidates(found), samples, request, covered)
    explored = Explored(
        _candidates(found),
        {s.name: weights.get(s.name, 1.0) for s in sites},  # without data, or interrupted
        {name: f.rows for name, f in found.items()},
        {name: f.per_sample for name, f in found.items()},
        refused,
    )
    _require_named(explored, data, request)
    return explored


@dataclass(frozen=True)
class SiteExplored:
    """One site: its candidates or why it has none, rows that reach it, and how many of them a sample brings."""

    candidates: tuple[Candidate, ...]
    reason: str
    rows: Tensor
    per_sample: float


def _candidates(found: Mapping[str, SiteExplored]) -> dict[str, tuple[Candidate, ...]]:
    return {name: f.candidates for name, f in found.items() if f.candidates}


def _explore(
    subject: Subject, site: Site, recorded: Sequence[Recorded], request: Request, many: bool
) -> SiteExplored | str:
    """Explore one site, or say why that is not possible."""
    block = block_of(subject.graph, site.nodes)
    per_sample = recorded[0].per_sample[site.name] if recorded else subject.share(site)
    if not recorded:
        rows = SiteData.without_rows(block, site.widths[0], request.seed)
    else:
        parts = [finite_rows(block, r.rows[site.name]) for r in recorded]
        if min(len(p.outputs) for p in parts) < 2:
            return "fewer than two of its calibration rows are finite"
        rows = SiteData(*parts)
    assert rows.choose.rows is not None
    try:
        found, reasons = candidates(
            rows, request.lights, request.gate, request.full, request.seed, many, request.optional_gate
        )
    except FullFormError as error:
        raise InputError(f"site '{site.name}' ({site.shape}): {error}. Leave the site out with sites=") from error
    return SiteExplored(tuple(found), reasons[0] if reasons else "no light form fits", rows.choose.rows, per_sample)


def _require_named(explored: Explored, data: Calibration | None, request: Request) -> None:
    """Raise where what the caller named fits no site; one site that it does not fit is refused, and the others are routed."""
    named = request.lights is not None or request.gate is not None
    if not explored.found and data is None and explored.refused and named:
        name, refusal = next(iter(explored.refused.items()))
        if refusal.reason == UNFITTED:
            return
        raise InputError(f"site '{name}': {refusal.reason}")


def _weights(
    subject: Subject,
    found: Mapping[str, Sequence[Candidate]],
    batches: Sequence[Inputs],
    request: Request,
    covered: Covered | None,
) -> dict[str, float]:
    """Return each site's error that moves the model's output by one unit of deviation: its rows light, all others as they are.

    Of several outputs, each sample's is the one that moves most.

    Args:
        subject: its graph and sites.
        found: their candidates.
        batches: samples that fitted light branches.
        request: a light branch that errs more than its `start` is tried, where there is one.
        covered: the outputs that count.
    """
    whole = sum(n.op not in ("placeholder", "output") for n in subject.graph.graph.nodes)
    if not found or any(whole == len(s.nodes) for s in subject.sites):  # the site is the whole model
        return dict.fromkeys(found, 1.0)
    probes = {name: _probe(candidates, request.start) for name, candidates in found.items()}
    gate = AlwaysLight().fit(SiteRows(BlockData(nn.Sequential()), nn.Identity()))
    branches = {name: replace(p.branches, gate_form=AlwaysLight(), gate=gate) for name, p in probes.items()}
    gm = rewrite(subject.graph, [s for s in subject.sites if s.name in found], branches)
    names = graph_names(gm)
    reference, weights = outputs(subject.graph, batches, covered), {}
    for site in progress(names, "weighing sites", "site"):
        error = float(probes[site].error.mean())
        if not (error > 0 and math.isfinite(error)):
            weights[site] = 1.0
            continue
        set_tolerances(gm, {name: float(other == site) for other, name in names.items()})
        far = deviations(reference, outputs(gm, batches, covered))
        slope = float(worst(far).mean()) / error
        weights[site] = 1 / (min(max(slope, 1e-3), 1e3) if math.isfinite(slope) else 1e3)
    return weights


def _probe(found: Sequence[Candidate], start: float) -> Candidate:
    """Return the candidate that errs least of those that err more than choosing starts at, or most of all."""
    by_error = sorted(found, key=lambda c: float(c.error.mean()))
    return next((c for c in by_error if float(c.error.mean()) > start), by_error[-1])


def _few(batches: Sequence[Inputs], samples: int) -> list[Inputs]:
    """Return the first batches, until they hold that many samples."""
    kept: list[Inputs] = []
    for batch in batches:
        if sum(b.samples for b in kept) >= samples:
            break
        kept.append(batch)
    return kept


def _explore_exact(subject: Subject, seed: int) -> Explored:
    """Approximate nothing, for a budget of 0: rows are recorded only for timing exact forms."""
    data, example = subject.data, subject.example
    reason = "the budget is 0: nothing is approximated"
    refused = {s.name: Refusal(s.name, reason, s.nodes[-1]) for s in subject.sites}
    given = data.choose if data is not None else [] if example is None else [example]
    if not given:
        return Explored(refused=refused)
    recorded = record_rows(subject.graph, subject.sites, _few(given, PROBE_SAMPLES), seed)
    return Explored(rows=recorded.rows, per_sample=recorded.per_sample, refused=refused)
