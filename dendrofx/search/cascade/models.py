"""The models of a cascade: light ones to search among and the full one, fitted, with their outputs on the other samples."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import fx, nn

from dendrofx.errors import InputError
from dendrofx.gates import AlwaysLight
from dendrofx.graph.sites import Sites
from dendrofx.guarantee.budget import Budget
from dendrofx.light import LightForm
from dendrofx.machine.progress import progress
from dendrofx.plan.plan import Plan
from dendrofx.rewriting.cascade import finite_inputs
from dendrofx.rewriting.rewrite import use_exact
from dendrofx.rows.samples import SampleAnalysis, check_samples
from dendrofx.runtime.model_scores import flat_rows
from dendrofx.search.cascade.forms import with_forms
from dendrofx.search.cascade.lights import LightModel, light_models
from dendrofx.search.cascade.routed import fit_routed
from dendrofx.search.cascade.search import Sets, picks
from dendrofx.search.explore import Explored, Options, explore
from dendrofx.search.pipeline import Pipeline, batch_sizes
from dendrofx.search.stopwatch import Timer
from dendrofx.search.tuning import Tuning
from dendrofx.values.calibration import Calibration
from dendrofx.values.covered import covered_by
from dendrofx.values.inputs import Inputs
from dendrofx.values.measure import deviation

# Light models that are timed and searched, of all that the forms make.
MOST_LIGHTS = 8


class Models:
    """Fitted when it is made; the test samples are run, and their outputs are looked at by the test alone.

    Args:
        captured: with symbolic shapes.
        base: the same on live rows, or the captured graph itself.
        sites: the selected sites of `base`.
        data: calibration with a test set.
        options: what the caller asked for.
        budget: whose output is read.
        timer: what times; None decides by counted cost.

    Attributes:
        data: with the inputs marked that all samples share.
        batched: names of the inputs that carry samples; finite: of those whose samples go full where they are not finite.
        sizes: samples per call that the decision is for.
        lights: the light models to search among, with their outputs; missing: where there are none, why.
        full: the full model; exact: by site the exact forms in it; full_plan: of its sites, where they are routed.
        reference, full_outputs: outputs of the original and of the full model.
        covered: the output that the budget is about, of which there is one; decision: its place, which the gate reads.

    Raises:
        InputError: the model is not proved independent of the batch, or gives every sample the same output.
    """

    @torch.no_grad()
    def __init__(
        self,
        captured: fx.GraphModule,
        base: fx.GraphModule,
        sites: Sites,
        data: Calibration,
        options: Options,
        budget: Budget,
        timer: Timer | None,
    ) -> None:
        self.captured, self.base, self.sites = captured, base, sites
        self.timer = timer
        self.exact: dict[str, tuple[LightForm, nn.Module]] = {}
        self.full_plan: Plan | None = None
        analysis = self.proved()
        self.batched, self.data = analysis.batched, data.with_shared(analysis.shared)
        self.finite = finite_inputs(self.batched, data.fit)
        check_samples(captured, self.data.fit[0], options.seed)
        self.covered = covered_by(captured, self.data.fit, budget.cover, strict=True)
        self.decision = budget.single(self.covered)
        self.options = replace(options, covered=self.covered)
        self.sizes = batch_sizes(options, self.data, None)
        run = self.explored()
        self.full = self.full_model(run)
        self.reference, self.full_outputs = self.outputs(captured), self.outputs(self.full)
        if bool((self.reference.test == self.reference.test[:1]).all()):
            raise InputError(
                "the original gives every calibration sample the same output: no budget can be shown on them"
            )
        found, reasons = self.routed_lights()
        self.lights = [*self.kept(light_models(run, base)), *found]
        if options.lights != [] or not reasons:
            reasons.append(f"no light form fits any of its blocks: {_reasons(run.explored)}")
        self.missing = "" if self.lights else "; ".join(reasons)

    def explored(self) -> Pipeline:
        """The candidates of every site for light models, whose rows are all light."""
        exploring = replace(self.options, gate=AlwaysLight(), full=None, exact=False)
        run = Pipeline(self.base, self.sites, self.data, exploring)
        run.explored = explore(self.base, self.sites, self.data, exploring)
        run.tuning = Tuning(self.base, run.explored, exploring, self.sizes)
        return run

    def proved(self) -> SampleAnalysis:
        """The proof that samples do not depend on each other.

        Raises:
            InputError: the model is not proved independent of the batch; names the node.
        """
        analysis = SampleAnalysis(self.captured)
        if refusals := analysis.refusals:
            raise InputError(
                f"scope='model' needs a model whose samples do not depend on each other: {refusals[0]}"
                + (f" (and {len(refusals) - 1} more)" if len(refusals) > 1 else "")
            )
        if not analysis.batched:
            raise InputError("scope='model': no input carries samples on axis 0")
        return analysis

    def full_model(self, run: Pipeline) -> fx.GraphModule:
        """What the samples in doubt run: the original, in exact forms where faster, or in the form that the caller named."""
        if (named := self.options.full) is not None:
            return with_forms(
                self.base, self.sites, dict.fromkeys([s.name for s in self.sites], named), self.data, self.options.seed
            )
        if (inside := self.options.full_model) is not None:
            made = fit_routed(inside, self.base, self.sites, self.data, self.options, self.timer)
            self.full_plan = made.plan
            return made.module
        if self.timer is None:
            return self.base
        alone = Explored(rows=run.explored.rows, per_sample=run.explored.per_sample)
        tuning = Tuning(self.base, alone, replace(self.options, exact=True), self.sizes, self.timer)
        tuning.run(self.sites)
        self.exact = {s.name: form for s in self.sites if (form := tuning.exact_form(s.name)) is not None}
        forms = {name: module for name, (_, module) in self.exact.items()}
        return use_exact(self.base, [s for s in self.sites if s.name in forms], forms)

    def routed_lights(self) -> tuple[list[tuple[LightModel, Sets]], list[str]]:
        """The light models with routed blocks, with their outputs; and of those where nothing is routed, why."""
        found, reasons = [], []
        for form in self.options.light_models:
            made = fit_routed(form, self.base, self.sites, self.data, self.options, self.timer)
            if made.branches:
                light = LightModel(str(form), made.branches, made.module, made.work, made.plan)
                found.append((light, self.outputs(light.module)))
            else:
                why = "; ".join(dict.fromkeys(s.reason for s in made.plan.sites)) or "the model has no blocks"
                reasons.append(f"with {form} no block is routed: {why}")
        return found, reasons

    def outputs(self, module: fx.GraphModule) -> Sets:
        """A model's outputs on the sets that fitted no light branch."""
        return Sets(
            *(picks(module, batches, self.covered) for batches in (self.data.gate, self.searched, self.data.test))
        )

    @property
    def searched(self) -> list[Inputs]:
        """The samples that cascades are searched on."""
        return [*self.data.choose, *self.data.walk]

    def kept(self, lights: list[LightModel]) -> list[tuple[LightModel, Sets]]:
        """The light models that no other beats in both work and deviation, at most eight, with their outputs."""
        found: list[tuple[LightModel, float]] = []
        best = float("inf")
        for light in progress(lights[::-1], "trying light models"):
            outputs = picks(light.module, self.data.gate, self.covered)
            far = float(deviation(flat_rows(self.reference.gate), flat_rows(outputs)).mean())
            found.append((light, far))
        front: list[LightModel] = []
        for light, _ in sorted(found, key=lambda f: (f[1], f[0].work)):
            if light.work < best:
                best = light.work
                front.append(light)
        return [(light, self.outputs(light.module)) for light in front[-MOST_LIGHTS:]]


def _reasons(explored: Explored) -> str:
    return "; ".join(dict.fromkeys(r.reason for r in explored.refused.values())) or "it has none"
