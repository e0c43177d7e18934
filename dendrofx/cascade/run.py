"""Deciding a cascade.

Batch independence is proved, light models and gates are fitted, settings searched and tested, the fastest is built, and the
whole is timed against the original.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import fx, nn
from tqdm import tqdm

from dendrofx.calibration import Calibration
from dendrofx.cascade.forms import with_forms
from dendrofx.cascade.graph import build
from dendrofx.cascade.lights import LightModel, light_models
from dendrofx.cascade.search import CallTimes, Gated, Sets, counted_times, gated, picks, settings
from dendrofx.errors import InputError
from dendrofx.explore import Explored, Options, explore
from dendrofx.gates import AlwaysLight, GateForm, LearnedGate, MarginGate
from dendrofx.gates.model_scores import flat_rows
from dendrofx.guarantee.budget import Budget
from dendrofx.guarantee.front import Setting, fastest, pareto, walked_front
from dendrofx.inputs import Inputs
from dendrofx.light import LightForm
from dendrofx.measure import deviation
from dendrofx.module import RoutedModule, set_tolerances
from dendrofx.pipeline import Pipeline, batch_sizes
from dendrofx.plan import CascadePlan
from dendrofx.rewrite import use_exact
from dendrofx.rows.samples import SampleAnalysis, check_samples
from dendrofx.sites import Sites
from dendrofx.stopwatch import Timer
from dendrofx.tuning import Tuning
from dendrofx.verify import ModelTimes, judge, timing_batches

# Light models that are timed and searched, of all that the forms make.
MOST_LIGHTS = 8


@dataclass
class Cascades:
    """One run at model scope; call `run`, or `search` and `tested`.

    Args:
        captured: with symbolic shapes.
        base: the same on live rows, or the captured graph itself.
        sites: the selected sites of `base`.
        data: calibration with a test set.
        options: what the caller asked for; its gate is one of whole models.
        budget: what is to be kept.
        timer: what times; None decides by counted cost.

    Attributes:
        front: the tested settings, safest first.
        plan: what became of it; chosen: the light model and gate that `planned` was last asked for.
        full: the full model; exact: by site the exact forms in it.
        keeps_exact: without a cascade, whether the full model alone wins.
    """

    captured: fx.GraphModule
    base: fx.GraphModule
    sites: Sites
    data: Calibration
    options: Options
    budget: Budget
    timer: Timer | None
    front: list[Setting] = field(default_factory=list)
    plan: CascadePlan | None = None
    model_times: list[ModelTimes] = field(default_factory=list)
    chosen: Gated | None = None
    exact: dict[str, tuple[LightForm, nn.Module]] = field(default_factory=dict)
    keeps_exact: bool = False

    @torch.no_grad()
    def run(self) -> Setting | None:
        """The setting of the cascade, or None where it is refused; `plan.reason` says why."""
        path = self.search()
        if isinstance(path, str):
            self.refuse(path)
            return None
        return self.tested(path)

    @torch.no_grad()
    def search(self) -> list[Setting] | str:
        """The path of settings to test, fixed without a look at the test samples' losses; or why there is none."""
        lights = self.lights()
        if isinstance(lights, str):
            return lights
        return self.path(lights) or "no light model with a gate is predicted to be faster than the original"

    @torch.no_grad()
    def lights(self) -> list[tuple[LightModel, Sets]] | str:
        """The light models that are searched, with their outputs; or why there are none."""
        self.batched = self.proved()
        names = {name for name, _ in self.data.fit[0].kwargs}
        self.data = self.data.with_shared(frozenset(names - set(self.batched)))
        self.sizes = batch_sizes(self.options, self.data, None)
        exploring = replace(self.options, gate=AlwaysLight(), full=None, exact=False)
        run = Pipeline(self.base, self.sites, self.data, exploring)
        run.explored = explore(self.base, self.sites, self.data, exploring)
        run.tuning = Tuning(self.base, run.explored, exploring, self.sizes)
        self.full = self.full_model(run)
        self.reference, self.full_sets = self.sets(self.captured), self.sets(self.full)
        if bool((self.reference.test == self.reference.test[:1]).all()):
            raise InputError(
                "the original gives every calibration sample the same output: no budget can be shown on them"
            )
        self.decision = self.budget.place(self.data.test[0].call(self.captured.forward))
        return (
            self.kept(light_models(run, self.base)) or f"no light form fits any of its blocks: {_reasons(run.explored)}"
        )

    def proved(self) -> tuple[str, ...]:
        """The inputs that carry samples.

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
        check_samples(self.captured, analysis.batched, self.data.fit[0], self.options.seed)
        return analysis.batched

    def full_model(self, run: Pipeline) -> fx.GraphModule:
        """What the samples in doubt run: the original, in exact forms where faster, or in the form that the caller named."""
        if (named := self.options.full) is not None:
            return with_forms(
                self.base, self.sites, dict.fromkeys([s.name for s in self.sites], named), self.data, self.options.seed
            )
        if self.timer is None:
            return self.base
        alone = Explored(rows=run.explored.rows, per_sample=run.explored.per_sample)
        tuning = Tuning(self.base, alone, replace(self.options, exact=True), self.sizes, self.timer)
        tuning.run(self.sites)
        self.exact = {s.name: form for s in self.sites if (form := tuning.exact_form(s.name)) is not None}
        forms = {name: module for name, (_, module) in self.exact.items()}
        return use_exact(self.base, [s for s in self.sites if s.name in forms], forms)

    def sets(self, module: fx.GraphModule) -> Sets:
        """A model's outputs on the sets that fitted no light branch."""
        return Sets(
            *(
                picks(module, batches, self.budget, self.batched)
                for batches in (self.data.gate, self.searched, self.data.test)
            )
        )

    @property
    def searched(self) -> list[Inputs]:
        """The samples that cascades are searched on."""
        return [*self.data.choose, *self.data.walk]

    def kept(self, lights: list[LightModel]) -> list[tuple[LightModel, Sets]]:
        """The light models that no other beats in both work and deviation, at most eight, with their outputs."""
        found: list[tuple[LightModel, float]] = []
        best = float("inf")
        for light in tqdm(reversed(lights), desc="trying light models", total=len(lights), delay=2, leave=False):
            outputs = picks(light.module, self.data.gate, self.budget, self.batched)
            far = float(deviation(flat_rows(self.reference.gate), flat_rows(outputs)).mean())
            found.append((light, far))
        front: list[LightModel] = []
        for light, _ in sorted(found, key=lambda f: (f[1], f[0].work)):
            if light.work < best:
                best = light.work
                front.append(light)
        return [(light, self.sets(light.module)) for light in front[-MOST_LIGHTS:]]

    def pairs(self, lights: Sequence[tuple[LightModel, Sets]]) -> list[Gated]:
        """Every light model with every gate that fits."""
        gates: list[GateForm] = [self.options.gate] if self.options.gate is not None else [LearnedGate()]
        if self.options.gate is None and self.budget.is_decision:
            gates.insert(0, MarginGate())
        return [
            gated(light, form, outputs, self.full_sets, self.reference, self.budget, self.options.seed)
            for light, outputs in lights
            for form in gates
        ]

    @torch.no_grad()
    def path(self, lights: Sequence[tuple[LightModel, Sets]]) -> list[Setting]:
        """The settings to test, safest first."""
        pairs = self.pairs(lights)
        times = self.times([light for light, _ in lights])
        most = 1 / self.options.min_speedup if self.options.decide else float("inf")
        return pareto([s for pair in pairs for s in settings(pair, times, self.made)], most)

    def times(self, lights: Sequence[LightModel]) -> list[CallTimes]:
        """What calls cost, timed where there is a timer."""
        if self.timer is None:
            return counted_times(lights, self.sizes)
        found = []
        for size in self.sizes:
            counts = sorted({n for n in (1, size // 16, size // 4, size) if n >= 1})
            batches = {n: timing_batches(self.searched, n) for n in counts}
            calls: dict[tuple[str, ...], tuple[nn.Module, Sequence[Inputs]]] = {
                ("original", ""): (self.captured, batches[size])
            }
            calls.update({("light", light.name): (light.module, batches[size]) for light in lights})
            calls.update({("full", str(n)): (self.full, batches[n]) for n in counts})
            ms = self.timer.calls(calls)
            base = ms["original", ""]
            full = tuple((n, ms["full", str(n)] / base) for n in counts)
            found.append(CallTimes(size, {light.name: ms["light", light.name] / base for light in lights}, full))
        return found

    def made(self, pair: Gated, threshold: float) -> RoutedModule:
        """The module of one setting."""
        module = build(self.captured, pair.light.module, pair.gate, self.full, self.batched, self.decision)
        set_tolerances(module, {"model": threshold})
        return module

    def tested(self, path: list[Setting]) -> Setting | None:
        """The fastest setting that the test samples accept, if it wins against the original."""
        self.front = walked_front(path, self.budget, nullcontext if self.timer is None else self.timer.interruptible)
        best = fastest(self.front, self.budget)
        if isinstance(best, str):
            self.refuse(best)
            return None
        if (
            self.options.decide
            and self.timer is not None
            and (lost := self.slower(best.make(), self.timer)) is not None
        ):
            self.refuse(f"the cascade did not win: {lost}")
            return None
        return best

    def slower(self, module: fx.GraphModule, timer: Timer) -> str | None:
        """Time it against the original; why it lost, if it did."""
        self.model_times = []
        for size in self.sizes:
            self.model_times.append(
                judge(timer.models(self.captured, module, timing_batches(self.data.test, size)), size)
            )
        losing = [t for t in self.model_times if not t.wins(self.options.min_speedup)]
        return min(losing, key=lambda t: t.speedup).reason(self.options.min_speedup) if losing else None

    def planned(self, setting: Setting) -> CascadePlan:
        """The chosen setting in the plan."""
        pair = setting.source
        assert isinstance(pair, Gated)
        self.chosen = pair
        assert setting.tested is not None
        return CascadePlan(
            "routed",
            "",
            pair.light.name,
            pair.form,
            self.options.full,
            setting.tolerances["model"],
            1 - setting.easy_share,
            pair.skill.value,
            None if pair.margin_skill is None else pair.margin_skill.value,
            setting.cost,
            sum(s.accepted for s in self.front),
        )

    def refuse(self, reason: str) -> None:
        """Note why there is no cascade, and whether the full model alone is faster than the original."""
        self.plan = CascadePlan("refused", reason)
        rewritten = self.options.full is None and (bool(self.exact) or self.base is not self.captured)
        if rewritten and (self.timer is None or not self.options.decide):
            self.keeps_exact = True
        elif rewritten and self.timer is not None:
            self.keeps_exact = self.slower(self.full, self.timer) is None


def _reasons(explored: Explored) -> str:
    return "; ".join(dict.fromkeys(r.reason for r in explored.refused.values())) or "it has none"
