"""The shortlist of a model of many sites: of all light forms, those that each site is fitted with.

Fitting every form at every site would take minutes. So every form is priced on a few samples, by its counted cost and its
closed-form error (`light/errors.py`), each site's slope is measured with a branch that takes no fitting, and the budget is split
over the sites (`split.py`). What that chooses is fitted, with gates, at the budget and at tighter and looser ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from dendrofx.errors import InputError
from dendrofx.gates import AlwaysLight
from dendrofx.graph.block import BlockData, block_of, finite_rows, row_macs
from dendrofx.graph.record import Recorded, record_in_turn
from dendrofx.graph.sites import Site
from dendrofx.light import LightForm, Precision
from dendrofx.light.errors import FormErrors
from dendrofx.machine.memory import return_free_memory
from dendrofx.machine.progress import progress
from dendrofx.request import Request
from dendrofx.rewriting.rewrite import Branches
from dendrofx.search.choose import MACS_PER_CONVERTED_VALUE, relative_error
from dendrofx.search.search_space import default_lights, default_precisions
from dendrofx.search.slopes import Probe, error_weights, first_samples
from dendrofx.search.split import Option, split
from dendrofx.statistics.moments import Moments
from dendrofx.subject import Subject
from dendrofx.values.calibration import Calibration
from dendrofx.values.covered import Covered

# Samples that slopes are measured on, one run of the model a site; and those of either set that forms are priced on.
FEW_SAMPLES = 32
# Shares of the budget that the sites' forms are chosen at: with a gate, a form may err more than its site's part of the budget.
SHARES = (4.0, 1.0, 0.25)


@dataclass(frozen=True)
class SitePrices:
    """The prices of a site.

    Attributes:
        forms: that save something: what each costs, in weighted multiply-adds per sample, and the error of the site's output.
        whole: what the block costs.
        probe: a branch to measure the slope with; its form is one of them.
    """

    forms: Mapping[LightForm, Option]
    whole: float
    probe: Probe


def shortlist(
    subject: Subject,
    request: Request,
    data: Calibration,
    covered: Covered | None,
    moments: Mapping[str, Sequence[Moments]],
) -> tuple[dict[str, list[LightForm]], dict[str, float]]:
    """Return by site the forms to fit, and the error that moves the model's output by one unit of deviation.

    `moments` are of all fitting samples of a dataset, by site, and empty where the calibration is none.
    """
    prices: dict[str, SitePrices] = {}
    sets = [first_samples(of, FEW_SAMPLES) for of in (data.fit, data.gate)]
    recorded = record_in_turn(subject.graph, subject.sites, sets, request.seed)
    for site, rows in progress(recorded, "pricing lights", "site", len(subject.sites)):
        if (found := _prices(subject, site, rows, moments.get(site.name), request.start)) is not None:
            prices[site.name] = found
        return_free_memory()
    probes = {name: of.probe for name, of in prices.items()}
    weights = error_weights(subject, probes, first_samples(data.fit, FEW_SAMPLES), covered)
    chosen: dict[str, dict[LightForm, None]] = {n: {of.probe.branches.light_form: None} for n, of in prices.items()}
    for share in SHARES:
        for name, form in chosen_forms(prices, weights, share * request.start).items():
            chosen[name].update({form: None})
    return {name: list(forms) for name, forms in chosen.items()}, weights


def chosen_forms(prices: Mapping[str, SitePrices], weights: Mapping[str, float], budget: float) -> dict[str, LightForm]:
    """Return the forms that keep a budget together at the least counted cost; sites without one are left as they are."""
    forms = {name: list(of.forms) for name, of in prices.items()}
    options = {
        name: [*[Option(o.cost, o.harm / weights[name]) for o in of.forms.values()], Option(of.whole, 0.0)]
        for name, of in prices.items()
    }
    taken = split(options, budget)
    return {name: forms[name][i] for name, i in taken.items() if i < len(forms[name])}


def _prices(
    subject: Subject, site: Site, recorded: Sequence[Recorded], moments: Sequence[Moments] | None, start: float
) -> SitePrices | None:
    """Price every form of a site; None where there is none, or too few rows."""
    block = block_of(subject.graph, site.nodes)
    fit = finite_rows(block, recorded[0].rows[site.name], moments)
    seen = finite_rows(block, recorded[1].rows[site.name])
    if min(len(fit.outputs), len(seen.outputs)) < 2:
        return None
    errors, full = FormErrors(fit, seen), row_macs(block)
    weight = recorded[0].per_sample[site.name]
    forms: dict[LightForm, Option] = {}
    for form in default_lights(fit):
        work = counted_work(errors.linears(form), form)
        if work < full or isinstance(form, Precision):
            forms[form] = Option(work * weight, errors.of(form))
    probe = _probe(fit, seen, forms, start)
    return None if probe is None else SitePrices(forms, full * weight, probe)


def counted_work(linears: Sequence[tuple[int, int]], form: LightForm) -> float:
    """Return multiply-adds per row, weighted by operand bits, conversions counted as `Candidate.macs` does."""
    precision = form if isinstance(form, Precision) else getattr(form, "precision", None)
    macs, values = sum(n * m for n, m in linears), sum(n + m for n, m in linears)
    return macs if precision is None else macs * precision.bits / 32 + MACS_PER_CONVERTED_VALUE * values


def _probe(fit: BlockData, seen: BlockData, forms: Mapping[LightForm, Option], start: float) -> Probe | None:
    """Fit what a slope is measured with: the first precision, which takes no fitting, or the form nearest above the budget."""
    by_error = sorted(forms, key=lambda form: forms[form].harm)
    above = [form for form in by_error if forms[form].harm > start]
    for form in [*default_precisions(), *above, *by_error[::-1]]:
        try:
            light = form.fit_data(fit)
        except InputError:
            continue
        return Probe(Branches(form, light, AlwaysLight(), nn.Identity()), float(relative_error(seen, light).mean()))
    return None
