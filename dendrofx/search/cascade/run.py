"""Deciding a cascade: settings searched and tested, the fastest built, and the whole timed against the original."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import fx, nn

from dendrofx.gates import GateForm, LearnedGate, MarginGate
from dendrofx.guarantee.budget import Budget
from dendrofx.plan.plan import CascadePlan
from dendrofx.plan.times import ModelTimes
from dendrofx.rewriting.cascade import build
from dendrofx.rewriting.module import RoutedModule, set_tolerances
from dendrofx.search.cascade.lights import LightModel
from dendrofx.search.cascade.models import Models
from dendrofx.search.cascade.search import CallTimes, Gated, counted_times, gated, settings
from dendrofx.search.explore import Options
from dendrofx.search.front import Setting, fastest, pareto, walked_front
from dendrofx.search.stopwatch import Timer
from dendrofx.search.verify import judge, lost, timing_batches
from dendrofx.values.inputs import Inputs


@dataclass
class Cascades:
    """One run at model scope.

    Args:
        models: fitted.
        options: what the caller asked for; its gate is one of whole models.
        budget: what is to be kept.
        timer: what times; None decides by counted cost.

    Attributes:
        front: the tested settings, safest first.
        plan: what became of it; chosen: the light model and gate that `planned` was last asked for.
        model_times: the last race against the original.
        exact_lost: without a cascade, why the full model alone does not win; None where it does.
    """

    models: Models
    options: Options
    budget: Budget
    timer: Timer | None
    front: list[Setting] = field(default_factory=list)
    plan: CascadePlan | None = None
    model_times: list[ModelTimes] = field(default_factory=list)
    chosen: Gated | None = None
    exact_lost: str | None = "not tried without the cascade, for full= was named"

    @torch.no_grad()
    def run(self) -> Setting | None:
        """The setting of the cascade, or None where it is refused; `plan.reason` says why."""
        if self.models.missing:
            self.refuse(self.models.missing)
            return None
        path = self.path()
        if not path:
            self.refuse("no light model with a gate is predicted to be faster than the original")
            return None
        return self.tested(path)

    def pairs(self) -> list[Gated]:
        """Every light model with every gate that fits."""
        models = self.models
        gates: list[GateForm] = [self.options.gate] if self.options.gate is not None else [LearnedGate()]
        if self.options.gate is None and self.budget.is_decision:
            gates.insert(0, MarginGate())
        return [
            gated(light, form, outputs, models.full_outputs, models.reference, self.budget, self.options.seed)
            for light, outputs in models.lights
            for form in gates
        ]

    @torch.no_grad()
    def path(self) -> list[Setting]:
        """The settings to test, safest first: fixed without a look at the test samples' losses."""
        pairs = self.pairs()
        times = self.times([light for light, _ in self.models.lights])
        most = 1 / self.options.min_speedup if self.options.decide else float("inf")
        return pareto([s for pair in pairs for s in settings(pair, times, self.made)], most)

    def times(self, lights: Sequence[LightModel]) -> list[CallTimes]:
        """What calls cost, timed where there is a timer."""
        if self.timer is None:
            return counted_times(lights, self.models.sizes)
        captured, full_model = self.models.captured, self.models.full
        found = []
        for size in self.models.sizes:
            counts = sorted({n for n in (1, size // 16, size // 4, size) if n >= 1})
            batches = {n: timing_batches(self.models.searched, n) for n in counts}
            calls: dict[tuple[str, ...], tuple[nn.Module, Sequence[Inputs]]] = {
                ("original", ""): (captured, batches[size])
            }
            calls.update({("light", light.name): (light.module, batches[size]) for light in lights})
            calls.update({("full", str(n)): (full_model, batches[n]) for n in counts})
            ms = self.timer.calls(calls)
            base = ms["original", ""]
            full = tuple((n, ms["full", str(n)] / base) for n in counts)
            found.append(CallTimes(size, {light.name: ms["light", light.name] / base for light in lights}, full))
        return found

    def made(self, pair: Gated, threshold: float) -> RoutedModule:
        """The module of one setting."""
        models = self.models
        module = build(
            models.captured, pair.light.module, pair.gate, models.full, models.batched, models.decision, models.finite
        )
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
            and (reason := self.slower(best.make(), self.timer)) is not None
        ):
            self.refuse(reason)
            return None
        return best

    def slower(self, module: fx.GraphModule, timer: Timer, what: str = "the cascade") -> str | None:
        """Time it against the original; why it (`what`) lost, if it did."""
        self.model_times = []
        for size in self.models.sizes:
            batches = timing_batches(self.models.data.test, size)
            self.model_times.append(judge(timer.models(self.models.captured, module, batches), size))
        return lost(self.model_times, self.options.min_speedup, what)

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
            self.options.full_model or self.options.full,
            setting.tolerances["model"],
            1 - setting.easy_share,
            pair.skill.value,
            None if pair.margin_skill is None else pair.margin_skill.value,
            setting.cost,
            sum(s.accepted for s in self.front),
            pair.light.plan,
            self.models.full_plan,
        )

    def refuse(self, reason: str) -> None:
        """Note why there is no cascade, and whether the full model alone is faster than the original."""
        self.plan = CascadePlan("refused", reason)
        named = self.options.full is not None or self.options.full_model is not None
        models = self.models
        rewritten = not named and (bool(models.exact) or models.base is not models.captured)
        if rewritten and (self.timer is None or not self.options.decide):
            self.exact_lost = None
        elif rewritten and self.timer is not None:
            self.exact_lost = self.slower(self.models.full, self.timer, "on live rows alone the model")
