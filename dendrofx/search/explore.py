"""Exploring: what each site could be given, and what its errors do to the model's output."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

from torch import Tensor, fx, nn

from dendrofx.errors import InputError
from dendrofx.gates import AlwaysLight, GateForm, SiteRows
from dendrofx.graph.block import BlockData, block_of
from dendrofx.graph.record import Recorded, record_in_turn, record_rows
from dendrofx.graph.sites import Refusal, Site
from dendrofx.guarantee.budget import Budget
from dendrofx.light import LightForm
from dendrofx.light.routed import Routed
from dendrofx.machine.memory import trim
from dendrofx.machine.progress import progress
from dendrofx.rewriting.module import graph_names, set_tolerances
from dendrofx.rewriting.rewrite import rewrite
from dendrofx.search.choose import Candidate, FullFormError, SiteData, candidates, finite_rows
from dendrofx.values.calibration import Calibration
from dendrofx.values.covered import Covered, Named
from dendrofx.values.inputs import Inputs
from dendrofx.values.measure import deviations, outputs, worst

# Samples on which a site's weight on the output is measured: a mean over them, per site.
PROBE_SAMPLES = 1024
# Models of more sites than this are large: less is tried on each of them, on fewer samples.
MANY_SITES, FEW_SAMPLES = 8, 32


@dataclass(frozen=True)
class Options:
    """What the caller asked for; see `transform`. A budget of 0 approximates nothing."""

    max_deviation: float
    lights: list[LightForm] | None
    gate: GateForm | None
    decide: bool
    seed: int
    full: LightForm | None = None
    batch_sizes: tuple[int, ...] | None = None
    min_speedup: float = 1.05
    exact: bool = False  # sites that are not routed may run in an exact form
    budget: Budget | None = None  # to certify; then `max_deviation` is where choosing starts
    light_models: tuple[Routed, ...] = ()  # of a cascade, beside those that `lights` make
    full_model: Routed | None = None  # of a cascade, instead of `full` at every site
    output: Named = None  # which outputs the budget is about, in the caller's words; by default all
    covered: Covered | None = None  # the same, found in what the model gives; None where nothing is measured


@dataclass(frozen=True)
class Explored:
    """By site name.

    Attributes:
        found: the candidates, for sites that have any.
        weights: the site's error that moves the model's output by one unit of deviation.
        rows: f32[N, in], rows that reach the site, for timing.
        per_sample: rows that one sample brings to the site.
        refused: sites without a candidate.
    """

    found: dict[str, list[Candidate]] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    rows: dict[str, Tensor] = field(default_factory=dict)
    per_sample: dict[str, float] = field(default_factory=dict)
    refused: dict[str, Refusal] = field(default_factory=dict)


def explore(
    captured: fx.GraphModule,
    sites: Sequence[Site],
    data: Calibration | None,
    options: Options,
    interruptible: Callable[[], AbstractContextManager[object]] = nullcontext,
    example: Inputs | None = None,
) -> Explored:
    """Fit every candidate of every site.

    Args:
        captured: the captured module.
        sites: the selected sites.
        data: calibration, or None.
        options: what the caller asked for.
        interruptible: makes a context that Ctrl-C ends, and with it the fitting: the sites left are refused.
        example: what reaches the sites where there is no data.

    Raises:
        InputError: a full form that the caller named does not fit a site, or without data a light form or gate fits none.
    """
    explored = Explored()
    if options.max_deviation == 0:
        given = data.choose if data is not None else [] if example is None else [example]
        return _explore_exact(captured, sites, given, options.seed)
    sets = [] if data is None else [data.fit, data.gate, data.choose]
    recorded = record_in_turn(captured, sites, sets, options.seed)
    many = len(sites) > MANY_SITES
    done: set[str] = set()
    with interruptible():
        turns = progress(recorded, "fitting lights and gates", "site", len(sites))
        for site, rows in turns:
            _explore(explored, captured, site, rows, options, many)
            done.add(site.name)
            trim()
        if data is not None:
            samples = _few(data.fit, FEW_SAMPLES if many else PROBE_SAMPLES)
            explored.weights.update(_weights(captured, sites, explored.found, samples, options))
    if not explored.found and len(done) == len(sites):
        _require_named(explored, data, options)
    for site in sites:
        if site.name not in done:
            explored.found.pop(site.name, None)
            _refuse(explored, site, "tuning was interrupted before its light branches and gates were fitted")
        explored.weights.setdefault(site.name, 1.0)  # without data, or interrupted
    return explored


def _explore(
    explored: Explored,
    captured: fx.GraphModule,
    site: Site,
    recorded: Sequence[Recorded],
    options: Options,
    many: bool,
) -> None:
    """One site."""
    block = block_of(captured, site.nodes)
    if not recorded:
        rows = SiteData.without_rows(block, site.widths[0], options.seed)
        explored.per_sample[site.name] = 1.0
    else:
        parts = [finite_rows(block, r.rows[site.name]) for r in recorded]
        if min(len(p.outputs) for p in parts) < 2:
            _refuse(explored, site, "fewer than two of its calibration rows are finite")
            return
        rows = SiteData(*parts)
        explored.per_sample[site.name] = recorded[0].per_sample[site.name]
    assert rows.choose.rows is not None
    explored.rows[site.name] = rows.choose.rows
    try:
        found, reasons = candidates(rows, options.lights, options.gate, options.full, options.seed, many)
    except FullFormError as error:
        raise InputError(f"site '{site.name}' ({site.shape}): {error}. Leave the site out with sites=") from error
    if not found:
        _refuse(explored, site, reasons[0] if reasons else "no light form fits")
        return
    explored.found[site.name] = found


def _require_named(explored: Explored, data: Calibration | None, options: Options) -> None:
    """Raise where what the caller named fits no site; one site that it does not fit is refused, and the others are routed."""
    if data is None and explored.refused and (options.lights is not None or options.gate is not None):
        name, refusal = next(iter(explored.refused.items()))
        raise InputError(f"site '{name}': {refusal.reason}")


def _weights(
    captured: fx.GraphModule,
    sites: Sequence[Site],
    found: Mapping[str, list[Candidate]],
    batches: Sequence[Inputs],
    options: Options,
) -> dict[str, float]:
    """Each site's error that moves the model's output by one unit of deviation: its rows light, all others as they are.

    Of several outputs, each sample's is the one that moves most.

    Args:
        captured: the captured module.
        sites: all of them.
        found: their candidates.
        batches: samples that fitted light branches.
        options: a light branch that errs more than their `max_deviation` is tried, where there is one.
    """
    whole = sum(n.op not in ("placeholder", "output") for n in captured.graph.nodes)
    if not found or any(whole == len(s.nodes) for s in sites):  # the site is the whole model
        return dict.fromkeys(found, 1.0)
    probes = {name: _probe(candidates, options.max_deviation) for name, candidates in found.items()}
    gate = AlwaysLight().fit(SiteRows(BlockData(nn.Sequential()), nn.Identity()))
    branches = {name: replace(p.branches, gate_form=AlwaysLight(), gate=gate) for name, p in probes.items()}
    gm = rewrite(captured, [s for s in sites if s.name in found], branches)
    names = graph_names(gm)
    reference, weights = outputs(captured, batches, options.covered), {}
    for site in progress(names, "weighing sites", "site"):
        error = float(probes[site].error.mean())
        if not (error > 0 and math.isfinite(error)):
            weights[site] = 1.0
            continue
        set_tolerances(gm, {name: float(other == site) for other, name in names.items()})
        far = deviations(reference, outputs(gm, batches, options.covered))
        slope = float(worst(far).mean()) / error
        weights[site] = 1 / (min(max(slope, 1e-3), 1e3) if math.isfinite(slope) else 1e3)
    return weights


def _probe(found: Sequence[Candidate], max_deviation: float) -> Candidate:
    """The candidate that errs least of those that err more than the budget, or most of all."""
    by_error = sorted(found, key=lambda c: float(c.error.mean()))
    return next((c for c in by_error if float(c.error.mean()) > max_deviation), by_error[-1])


def _few(batches: Sequence[Inputs], samples: int) -> list[Inputs]:
    """The first batches, until they hold that many samples."""
    kept: list[Inputs] = []
    for batch in batches:
        if sum(b.samples for b in kept) >= samples:
            break
        kept.append(batch)
    return kept


def _explore_exact(captured: fx.GraphModule, sites: Sequence[Site], batches: Sequence[Inputs], seed: int) -> Explored:
    """A budget of 0: nothing is approximated, and rows are recorded only for timing exact forms."""
    explored = Explored()
    for site in sites:
        _refuse(explored, site, "the budget is 0: nothing is approximated")
    if batches:
        recorded = record_rows(captured, sites, _few(batches, PROBE_SAMPLES), seed)
        explored.rows.update(recorded.rows)
        explored.per_sample.update(recorded.per_sample)
    return explored


def _refuse(explored: Explored, site: Site, reason: str) -> None:
    explored.refused[site.name] = Refusal(site.name, reason, site.nodes[-1])
