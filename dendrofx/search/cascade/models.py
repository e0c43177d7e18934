"""The models of a cascade: light ones to search among and the full one, fitted, with their outputs on the other samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx

from dendrofx.errors import InputError
from dendrofx.gates import AlwaysLight
from dendrofx.guarantee.budget import Budget
from dendrofx.machine.progress import progress
from dendrofx.plan.plan import Plan
from dendrofx.request import Request
from dendrofx.rewriting.cascade import finite_inputs
from dendrofx.rewriting.rewrite import use_exact
from dendrofx.rows.samples import SampleAnalysis, check_samples
from dendrofx.runtime.model_scores import flat_rows
from dendrofx.search.autotune import Tuning
from dendrofx.search.blocks import BlockSpace, batch_sizes
from dendrofx.search.cascade.forms import with_forms
from dendrofx.search.cascade.lights import LightModel, light_models
from dendrofx.search.cascade.routed import fit_routed
from dendrofx.search.cascade.search import Sets, picks
from dendrofx.search.estimates import ExactForm
from dendrofx.search.explore import explore
from dendrofx.search.explored import Explored
from dendrofx.search.timer import Timer
from dendrofx.subject import Subject
from dendrofx.values.calibration import Calibration
from dendrofx.values.covered import Covered, covered_by
from dendrofx.values.inputs import Inputs
from dendrofx.values.measure import deviation

# Light models that are timed and searched, of all that the forms make.
MOST_LIGHTS = 8


@dataclass(frozen=True)
class Proved:
    """A model whose samples are proved not to depend on each other.

    Attributes:
        subject: its calibration has the inputs marked that all samples share.
        batched: names of the inputs that carry samples; finite: of those whose samples go full where they are not finite.
        covered: the output that the budget is about, of which there is one; decision: its place, which the gate reads.
    """

    subject: Subject
    batched: tuple[str, ...]
    finite: tuple[str, ...]
    covered: Covered
    decision: int

    @staticmethod
    def of(subject: Subject, budget: Budget, seed: int | None) -> Proved:
        """Prove it on the graph, and try it where there is a seed.

        Raises:
            InputError: the model is not proved independent of the batch; names the node.
        """
        analysis = SampleAnalysis(subject.original)
        if refusals := analysis.refusals:
            raise InputError(
                f"scope='model' needs a model whose samples do not depend on each other: {refusals[0]}"
                + (f" (and {len(refusals) - 1} more)" if len(refusals) > 1 else "")
            )
        if not analysis.batched:
            raise InputError("scope='model': no input carries samples on axis 0")
        assert subject.data is not None
        data = subject.data.with_shared(analysis.shared)
        finite = finite_inputs(analysis.batched, data.fit)
        if seed is not None:
            check_samples(subject.original, data.fit[0], seed)
        covered = covered_by(subject.original, data.fit, budget.cover, strict=True)
        decision = budget.single(covered)
        return Proved(replace(subject, data=data), analysis.batched, finite, covered, decision)

    @property
    def data(self) -> Calibration:
        """Its calibration."""
        assert self.subject.data is not None
        return self.subject.data

    @property
    def searched(self) -> list[Inputs]:
        """The samples that cascades are searched on."""
        return [*self.data.choose, *self.data.tune]

    def outputs(self, module: fx.GraphModule) -> Sets:
        """Return a model's outputs on the sets that fitted no light branch."""
        return Sets(*(picks(module, b, self.covered) for b in (self.data.gate, self.searched, self.data.test)))


@dataclass(frozen=True)
class FullModel:
    """What the samples in doubt run.

    Attributes:
        module: the original, in exact forms where these are faster, or in the form that the caller named.
        exact: by site the exact forms in it.
        plan: of its sites, where they are routed.
    """

    module: fx.GraphModule
    exact: Mapping[str, ExactForm]
    plan: Plan | None = None


@dataclass(frozen=True)
class ModelSpace:
    """The models of a cascade.

    Attributes:
        proved: the original.
        request: what was asked for; budget: what is to be kept.
        sizes: samples per call that the decision is for.
        full: the full model.
        reference, full_outputs: outputs of the original and of the full model.
        lights: the light models to search among, with their outputs; missing: where there are none, why.
    """

    proved: Proved
    request: Request
    budget: Budget
    sizes: tuple[int, ...]
    full: FullModel
    reference: Sets
    full_outputs: Sets
    lights: tuple[tuple[LightModel, Sets], ...]
    missing: str

    @staticmethod
    @torch.no_grad()
    def fitted(subject: Subject, request: Request, budget: Budget, timer: Timer | None) -> ModelSpace:
        """Fit the models; the test samples are run, and their outputs are looked at by the test alone.

        Raises:
            InputError: the model is not proved independent of the batch, or gives every sample the same output.
        """
        proved = Proved.of(subject, budget, request.seed)
        sizes = batch_sizes(request, proved.subject)
        blocks = _explored(proved, request, sizes)
        full = _full(proved, request, blocks, timer)
        reference, full_outputs = proved.outputs(subject.original), proved.outputs(full.module)
        if bool((reference.test == reference.test[:1]).all()):
            raise InputError(
                "the original gives every calibration sample the same output: no budget can be shown on them"
            )
        routed, reasons = _routed_lights(proved, request, timer)
        lights = (*_kept(proved, light_models(blocks), reference.gate), *routed)
        if request.lights != [] or not reasons:
            reasons.append(f"no light form fits any of its blocks: {_reasons(blocks.explored)}")
        missing = "" if lights else "; ".join(reasons)
        return ModelSpace(proved, request, budget, sizes, full, reference, full_outputs, lights, missing)

    def stripped(self) -> ModelSpace:
        """Return it without calibration and outputs: what its settings need to be decided."""
        proved = replace(self.proved, subject=replace(self.proved.subject, data=None))
        none = Sets(*[torch.empty(0)] * 3)
        return replace(self, proved=proved, reference=none, full_outputs=none, lights=())


def _explored(proved: Proved, request: Request, sizes: tuple[int, ...]) -> BlockSpace:
    """Return the candidates of every site for light models, whose rows are all light."""
    exploring = replace(request, gate=AlwaysLight(), full=None, exact=False)
    explored = explore(proved.subject, exploring, proved.covered)
    return BlockSpace(proved.subject, exploring, proved.covered, explored, Tuning(explored, exploring, sizes))


def _full(proved: Proved, request: Request, blocks: BlockSpace, timer: Timer | None) -> FullModel:
    """Fit the full model."""
    base, sites = proved.subject.graph, proved.subject.sites
    if (named := request.full) is not None:
        forms = dict.fromkeys([s.name for s in sites], named)
        return FullModel(with_forms(base, sites, forms, proved.data, request.seed), {})
    if (inside := request.full_model) is not None:
        made = fit_routed(inside, proved.subject, request, proved.covered, timer)
        return FullModel(made.module, {}, made.plan)
    if timer is None:
        return FullModel(base, {})
    alone = Explored(rows=blocks.explored.rows, per_sample=blocks.explored.per_sample)
    tuning = Tuning(alone, replace(request, exact=True), blocks.tuning.sizes).timed(base, sites, timer)
    exact = {s.name: form for s in sites if (form := tuning.exact_form(s.name)) is not None}
    modules = {name: form.module for name, form in exact.items()}
    return FullModel(use_exact(base, [s for s in sites if s.name in exact], modules), exact)


def _routed_lights(
    proved: Proved, request: Request, timer: Timer | None
) -> tuple[list[tuple[LightModel, Sets]], list[str]]:
    """Return the light models with routed blocks, with their outputs; and of those where nothing is routed, why."""
    found, reasons = [], []
    for form in request.light_models:
        made = fit_routed(form, proved.subject, request, proved.covered, timer)
        if made.branches:
            light = LightModel(str(form), made.branches, made.module, made.work, made.plan)
            found.append((light, proved.outputs(light.module)))
        else:
            why = "; ".join(dict.fromkeys(s.reason for s in made.plan.sites)) or "the model has no blocks"
            reasons.append(f"with {form} no block is routed: {why}")
    return found, reasons


def _kept(proved: Proved, lights: list[LightModel], reference: Tensor) -> list[tuple[LightModel, Sets]]:
    """Return the light models that no other beats in both work and deviation, at most eight, with their outputs."""
    found: list[tuple[LightModel, float]] = []
    for light in progress(lights[::-1], "trying light models"):
        outputs = picks(light.module, proved.data.gate, proved.covered)
        found.append((light, float(deviation(flat_rows(reference), flat_rows(outputs)).mean())))
    kept: list[LightModel] = []
    best = float("inf")
    for light, _ in sorted(found, key=lambda f: (f[1], f[0].work)):
        if light.work < best:
            best = light.work
            kept.append(light)
    return [(light, proved.outputs(light.module)) for light in kept[-MOST_LIGHTS:]]


def _reasons(explored: Explored) -> str:
    return "; ".join(dict.fromkeys(r.reason for r in explored.refused.values())) or "it has none"
