"""Exploring: what each site could be given, and what its errors do to the model's output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from torch import Tensor

from dendrofx.errors import InputError
from dendrofx.graph.block import block_of, finite_rows
from dendrofx.graph.record import Recorded, record_in_turn, record_rows
from dendrofx.graph.site_moments import fit_moments
from dendrofx.graph.sites import Refusal, Site
from dendrofx.light import LightForm
from dendrofx.machine.memory import return_free_memory
from dendrofx.machine.progress import progress
from dendrofx.request import Request
from dendrofx.search.choose import Candidate, FullFormError, SiteData, candidates
from dendrofx.search.explored import Explored
from dendrofx.search.shortlist import FEW_SAMPLES, shortlist
from dendrofx.search.slopes import error_weights, first_samples, probe_of
from dendrofx.statistics.moments import Moments
from dendrofx.subject import Subject
from dendrofx.values.calibration import Calibration
from dendrofx.values.covered import Covered

# Samples on which a site's weight on the output is measured: a mean over them, per site.
PROBE_SAMPLES = 1024
# Models of more sites than this are large: less is fitted on each of them, on fewer samples.
MANY_SITES = 8
UNFITTED = "tuning was interrupted before its light branches and gates were fitted"


def explore(
    subject: Subject,
    request: Request,
    covered: Covered | None,
    interruptible: AbstractContextManager[object] | None = None,
    shortlisted: bool = False,
) -> Explored:
    """Fit every candidate of every site; of models of many sites those that `shortlist.py` chooses, or the ones of 8 bits.

    Args:
        subject: its graph, selected sites, and calibration; or an example, for what reaches the sites where there is no data.
        request: what the caller asked for.
        covered: the outputs that are measured; None where none is.
        interruptible: a context that Ctrl-C ends, and with it the fitting: the sites left are refused.
        shortlisted: whether sites of models of many sites may each have other forms.

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
    lights: dict[str, list[LightForm]] = {}
    with interruptible or nullcontext():
        moments = fit_moments(data, subject.graph, sites)
        if many and shortlisted and data is not None and request.lights is None:
            lights, weights = shortlist(subject, request, data, covered, moments)
        recorded = record_in_turn(subject.graph, sites, sets, request.seed)
        for site, rows in progress(recorded, "fitting lights and gates", "site", len(sites)):
            forms = lights.get(site.name, request.lights)
            made = _explore(subject, site, rows, moments.get(site.name), request, forms, many)
            del refused[site.name]
            if isinstance(made, SiteExplored):
                found[site.name] = made
            if not isinstance(made, SiteExplored) or not made.candidates:
                reason = made if isinstance(made, str) else made.reason
                refused[site.name] = Refusal(site.name, reason, site.nodes[-1])
            return_free_memory()
        if data is not None and not weights:
            samples = first_samples(data.fit, FEW_SAMPLES if many else PROBE_SAMPLES)
            probes = {name: probe_of(of, request.start) for name, of in _candidates(found).items()}
            weights = error_weights(subject, probes, samples, covered)
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
    subject: Subject,
    site: Site,
    recorded: Sequence[Recorded],
    moments: Sequence[Moments] | None,
    request: Request,
    lights: Sequence[LightForm] | None,
    many: bool,
) -> SiteExplored | str:
    """Explore one site, or say why that is not possible."""
    block = block_of(subject.graph, site.nodes)
    per_sample = recorded[0].per_sample[site.name] if recorded else subject.share(site)
    if not recorded:
        rows = SiteData.without_rows(block, site.widths[0], request.seed)
    else:
        fit, *others = [r.rows[site.name] for r in recorded]
        parts = [finite_rows(block, fit, moments), *(finite_rows(block, rows) for rows in others)]
        if min(len(p.outputs) for p in parts) < 2:
            return "fewer than two of its calibration rows are finite"
        rows = SiteData(*parts)
    assert rows.choose.rows is not None
    try:
        found, reasons = candidates(rows, lights, request.gate, request.full, request.seed, many, request.optional_gate)
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


def _explore_exact(subject: Subject, seed: int) -> Explored:
    """Approximate nothing, for a budget of 0: rows are recorded only for timing exact forms."""
    data, example = subject.data, subject.example
    reason = "the budget is 0: nothing is approximated"
    refused = {s.name: Refusal(s.name, reason, s.nodes[-1]) for s in subject.sites}
    given = data.choose if data is not None else [] if example is None else [example]
    if not given:
        return Explored(refused=refused)
    recorded = record_rows(subject.graph, subject.sites, first_samples(given, PROBE_SAMPLES), seed)
    return Explored(rows=recorded.rows, per_sample=recorded.per_sample, refused=refused)
