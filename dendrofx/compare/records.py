"""What is measured, as plain records: the source of the tables, of the JSON and of the plots."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from dendrofx.compare.samples import Order, timed_batches
from dendrofx.compare.variants import UNTIMED, Peer, Prepared, Variant
from dendrofx.guarantee.losses import losses_of
from dendrofx.machine.pace import Pace, noisy, pace, touched
from dendrofx.machine.race import Race, Timing, on_one_thread, race
from dendrofx.search.cascade.skills import cascade_skills, light_outputs
from dendrofx.values.counts import CASCADE, activity, executed_macs, executed_work, live_share, of_sites
from dendrofx.values.covered import Covered, cover
from dendrofx.values.inputs import Inputs
from dendrofx.values.measure import agreement, counted_outputs, deviations, largest_mean, model_macs, outputs
from dendrofx.values.outputs import flatten

AGAIN = "scripted again"


@dataclass(frozen=True)
class Quality:
    """What a variant computes on the test samples: shares of 1, and deviations per sample. What a peer executes is not known.

    Of several outputs that the budget is about, each figure is that of the output where it is largest.
    """

    activity: float | None
    live: float | None
    effective_compute: float | None
    plain_macs: float | None
    mean: float
    p99: float
    max: float
    agreement: float | None
    loss: float | None = None  # mean, in the metric of a certified budget
    output: str = ""  # where the mean deviation is largest; empty where there is one output

    def deviation(self) -> dict[str, float]:
        """For the JSON."""
        return {"mean": self.mean, "p99": self.p99, "max": self.max}


@dataclass(frozen=True)
class Row:
    """A variant's line: its quality and its timing (None for the oracle, whose time means nothing)."""

    variant: Variant
    quality: Quality
    timing: Timing | None


@dataclass(frozen=True)
class Record:
    """One table: a case at one batch size and in one order of its samples."""

    prepared: Prepared
    batch: int
    order: Order
    threads: int
    rows: list[Row]
    race: Race
    noisy: str = ""  # what says that the machine was disturbed
    sweep: list[Mapping[str, Any]] = field(default_factory=list)
    ablation: list[Mapping[str, Any]] = field(default_factory=list)
    missing: Mapping[str, str] = field(default_factory=dict)  # peers that did not run, and why
    skills: Sequence[str] = ()  # a cascade's router skill on the test samples, in words

    @property
    def routed(self) -> Row:
        """The main row."""
        found = self.row(self.prepared.main)
        assert found is not None
        return found

    @property
    def pace(self) -> Pace:
        """How many times as fast the main row is as the scripted baseline, by each estimate."""
        return pace(self.race, "scripted", AGAIN, self.prepared.main)

    @property
    def unreliable(self) -> str:
        """Why no wall times may be compared, with the estimates that contradict each other; empty where they may."""
        return "" if self.pace.medians_hold else f"{self.pace} ({self.pace.doubt})"

    @property
    def aa_ratio(self) -> float:
        """The scripted baseline's median against itself."""
        return self.race.ratio(AGAIN, "scripted")

    def row(self, name: str) -> Row | None:
        """A row by name."""
        return next((r for r in self.rows if r.variant.name == name), None)

    @property
    def certificate(self) -> dict[str, Any] | None:
        """What was shown for the main row; None where nothing was, or was asked for."""
        shown = self.prepared.plan.certificate
        return None if shown is None else shown.to_json()

    def speedup(self, row: Row, over: str) -> float | None:
        """Median of `over` over median of the row."""
        return None if row.timing is None else self.race.timings[over].p50 / row.timing.p50

    def to_json(self) -> dict[str, Any]:
        """Fractions, not percent; the oracle's latency is null."""
        return {
            "case": self.prepared.case.name,
            "batch": self.batch,
            "order": self.order,
            "threads": self.threads,
            "aa_ratio": self.aa_ratio,
            "noisy": bool(self.noisy),
            "unreliable": self.unreliable,
            "refused": self.prepared.refused,
            "transform_s": self.prepared.transform_s,
            "variants": [self._variant(r) for r in self.rows],
            "missing": dict(self.missing),
            "sweep": self.sweep,
            "ablation": self.ablation,
            "certificate": self.certificate,
            "plan": self.prepared.plan.to_json(),
            "plans": {name: plan.to_json() for name, plan in self.prepared.plans.items()},
        }

    def _variant(self, row: Row) -> dict[str, Any]:
        timing, quality, variant = row.timing, row.quality, row.variant
        main = variant.name == self.prepared.main and bool(self.prepared.plan.budget)
        return {
            "name": variant.name,
            "latency_ms": None if timing is None else {"p50": timing.p50, "p95": timing.p95},
            "speedup_vs_eager": self.speedup(row, "eager"),
            "speedup_vs_scripted": self.speedup(row, "scripted"),
            "rows_per_s": None if timing is None else self.batch / timing.p50 * 1e3,
            "activity": quality.activity,
            "live": quality.live,
            "effective_compute": quality.effective_compute,
            "plain_macs": quality.plain_macs,
            "deviation": quality.deviation(),
            **({"output": quality.output} if quality.output else {}),
            "agreement": quality.agreement,
            "loss": quality.loss,
            "first_call_ms": variant.first_call_ms,
            "weight_bytes": variant.weight_bytes,
            "file_bytes": variant.file_bytes,
            **({"certified": self.certificate is not None} if main else {}),
        }


class Bench:
    """Measures variants of one case at one batch size and in one order."""

    def __init__(self, prepared: Prepared, batch: int, seconds: float, seed: int, order: Order = "random") -> None:
        self.prepared, self.batch, self.seconds, self.seed, self.order = prepared, batch, seconds, seed, order
        test = prepared.case.test
        self.batches = test.batches(batch, order)
        self.covered = self._covered()
        self.reference = outputs(prepared.case.model, self.batches, self.covered)
        self.macs = model_macs(prepared.case.model, self.batches)
        self.timed = timed_batches(test, batch, order, seed)

    @torch.no_grad()
    def _covered(self) -> Covered:
        """The outputs that the plan says its budget is about; where it measured none, those that it would be about."""
        tensors, form = flatten(self.batches[0].call(self.prepared.case.model))
        if named := tuple(self.prepared.plan.outputs):
            return cover(form.names, tensors, named)
        budget = self.prepared.asked.budget
        return cover(form.names, tensors) if budget is None else budget.cover(form.names, tensors)

    def quality(self, module: nn.Module, counted: bool) -> Quality:
        """Outputs on every test sample against the eager original's, and what was executed for them."""
        share: float | None = 1.0
        plain: float | None = 1.0
        active: float | None = None
        live: float | None = None
        if counted:
            output, counts = counted_outputs(module, self.batches, self.covered)
            share = executed_work(counts, self.macs) / self.macs
            plain = executed_macs(counts, self.macs) / self.macs
            active = activity(counts) if of_sites(counts) or CASCADE in counts else None
            live = live_share(counts)
        else:
            output = outputs(module, self.batches, self.covered)
        if isinstance(module, Peer):
            share = plain = None
        far, names = deviations(self.reference, output), self.covered.covered
        figures = largest_mean(far), float(far.quantile(0.99, dim=0).max()), float(far.max())
        where = names[int(far.mean(0).argmax())] if len(names) > 1 else ""
        return Quality(active, live, share, plain, *figures, self.agreement(output), self.loss(module), where)

    @torch.no_grad()
    def agreement(self, outputs: Sequence[Tensor]) -> float | None:
        """Share of decisions, by the first covered output, that are the reference's; None for a model that decides nothing."""
        case, reference, output = self.prepared.case, self.reference[0], outputs[0]
        if case.head is not None:
            return agreement(case.head(reference), case.head(output))
        return agreement(reference, output) if case.classes else None

    def time(self, modules: Mapping[str, nn.Module]) -> Race:
        """Time modules in turns on the same batches."""
        calls: dict[str, Callable[[int], object]] = {n: partial(_call, m, self.timed) for n, m in modules.items()}
        with torch.no_grad():
            return race(calls, self.seconds, self.seed, batches=dict.fromkeys(calls, len(self.timed)))

    def race(self, modules: Mapping[str, nn.Module]) -> Race:
        """The same, and where the times of the main row and of its baseline are in doubt, these once more on one thread.

        Where the estimates contradict each other, all over again, once.
        """
        names = ("scripted", AGAIN, self.prepared.main)
        result = self.time(modules)
        for attempt in range(2):
            if result.threads > 1 and touched(result, names):
                with on_one_thread():
                    result = replace(result, alone=self.time({n: modules[n] for n in names}))
            if attempt or pace(result, *names).medians_hold:
                break
            result = self.time(modules)
        return result

    def measure(self, variants: Mapping[str, Variant], missing: Mapping[str, str] | None = None) -> Record:
        """One table; `missing` are the peers that did not run, and why."""
        quality = {name: self.quality(v.module, v.counted) for name, v in variants.items()}
        timed = {name: v.module for name, v in variants.items() if name not in UNTIMED}
        result = self.race({**timed, AGAIN: variants["scripted"].module})
        rows = [Row(v, quality[name], result.timings.get(name)) for name, v in variants.items()]
        busy = noisy(result, "scripted", AGAIN, self.prepared.main)
        threads = torch.get_num_threads()
        skills = self.skills()
        return Record(self.prepared, self.batch, self.order, threads, rows, result, busy, [], [], missing or {}, skills)

    @torch.no_grad()
    def loss(self, module: nn.Module) -> float | None:
        """The mean loss on the test samples in the certified budget's metric."""
        if (budget := self.prepared.asked.budget) is None:
            return None
        found = [
            losses_of(budget, reference, self.covered.pick(batch.call(module), batch.samples))
            for batch, reference in zip(self.batches, self.picked, strict=True)
        ]
        return largest_mean(torch.cat(found))

    @cached_property
    @torch.no_grad()
    def picked(self) -> list[list[Tensor]]:
        """Per batch, the outputs of the original that the budget is about."""
        return [self.covered.pick(b.call(self.prepared.case.model), b.samples) for b in self.batches]

    @torch.no_grad()
    def skills(self) -> tuple[str, ...]:
        """Router skill of a cascade's gate on the test samples, in words."""
        budget, routed = self.prepared.asked.budget, self.prepared.routed
        if budget is None or self.prepared.plan.certificate is None or self.prepared.plan.cascade is None:
            return ()
        light, scores = zip(*(light_outputs(routed, b) for b in self.batches), strict=True)
        return cascade_skills(
            budget, torch.cat([p[0] for p in self.picked]), torch.cat(light), torch.cat(scores), self.seed
        )


def _call(module: nn.Module, batches: list[Inputs], number: int) -> object:
    return batches[number % len(batches)].call(module)
