"""The measuring of a table: every variant's outputs on every test sample, and all of them timed in turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor, nn

from dendrofx.compare.prepare import Prepared
from dendrofx.compare.quality import Quality, quality_of, run
from dendrofx.compare.records import AGAIN, Record, Row
from dendrofx.compare.samples import Order, timed_batches
from dendrofx.compare.turns import time_in_doubt, time_in_turns
from dendrofx.compare.variants import UNTIMED, Outside, Variant
from dendrofx.guarantee.losses import losses_of
from dendrofx.machine.pace import noisy
from dendrofx.machine.parallel_regions import count_regions
from dendrofx.machine.race import Race
from dendrofx.search.cascade.skills import cascade_skills, light_outputs
from dendrofx.values.covered import Covered, cover
from dendrofx.values.measure import agreement, largest_mean, outputs_and_macs
from dendrofx.values.outputs import flatten


class Bench:
    """Measures variants of one case at one batch size and in one order."""

    def __init__(self, prepared: Prepared, batch: int, seconds: float, seed: int, order: Order = "random") -> None:
        self.prepared, self.batch, self.seconds, self.seed, self.order = prepared, batch, seconds, seed, order
        test = prepared.case.test
        self.batches = test.batches(batch, order)
        self.covered = self._covered()
        self.reference, self.macs = outputs_and_macs(prepared.case.model, self.batches, self.covered)
        self.timed = timed_batches(test, batch, order, seed)

    @torch.no_grad()
    def _covered(self) -> Covered:
        """Return the outputs that the plan says its budget is about; where it measured none, those that it would be about."""
        one = self.prepared.case.test.batches(1, self.order)[0]
        tensors, form = flatten(one.call(self.prepared.case.model))
        if named := tuple(self.prepared.plan.outputs):
            return cover(form.names, tensors, named)
        budget = self.prepared.asked.budget
        return cover(form.names, tensors) if budget is None else budget.cover(form.names, tensors)

    def quality(self, module: nn.Module, counted: bool) -> Quality:
        """Outputs on every test sample against the eager original's, and what was executed for them."""
        same = module is self.prepared.case.model
        output, counts = (self.reference, None) if same else run(module, self.batches, self.covered, counted)
        found = quality_of(self.reference, output, self.covered.covered, counts, self.macs)
        found = replace(found, agreement=self.agreement(output), loss=self.loss(module))
        return replace(found, effective_compute=None, plain_macs=None) if isinstance(module, Outside) else found

    @torch.no_grad()
    def agreement(self, outputs: Sequence[Tensor]) -> float | None:
        """Share of decisions, by the first covered output, that are the reference's; None for a model that decides nothing."""
        case, reference, output = self.prepared.case, self.reference[0], outputs[0]
        if case.head is not None:
            return agreement(case.head(reference), case.head(output))
        return agreement(reference, output) if case.classes else None

    def time(self, modules: Mapping[str, nn.Module]) -> Race:
        """Time modules in turns on the same batches."""
        return time_in_turns(modules, self.timed, self.seconds, self.seed, self.prepared.case.most_seconds)

    def race(self, modules: Mapping[str, nn.Module]) -> Race:
        """Race them; where the times of the main row and of its baseline are in doubt, see `time_in_doubt`."""
        return time_in_doubt(modules, ("scripted", AGAIN, self.prepared.main), self.time)

    def measure(
        self, variants: Mapping[str, Variant], missing: Mapping[str, str] | None = None, regions: bool = True
    ) -> Record:
        """Measure one table; `missing` are the peers that did not run, and why; `regions` is whether to count these."""
        quality = {name: self.quality(v.module, v.counted) for name, v in variants.items()}
        timed = {name: v.module for name, v in variants.items() if name not in UNTIMED}
        result = self.race({**timed, AGAIN: variants["scripted"].module})
        opened = {name: self.regions(v.module) if regions else None for name, v in variants.items()}
        rows = [Row(v, quality[name], result.timings.get(name), opened[name]) for name, v in variants.items()]
        busy = noisy(result, "scripted", AGAIN, self.prepared.main)
        threads = torch.get_num_threads()
        skills = self.skills()
        case, missing = self.prepared.case, missing or {}
        limit = None if case.limit is None else case.limit.of(self.timed)
        return Record(
            self.prepared, self.batch, self.order, threads, rows, result, busy, [], [], missing, skills, limit=limit
        )

    def regions(self, module: nn.Module) -> int | None:
        """Return the parallel regions that a call opens; None of what runs outside TorchScript."""
        return None if isinstance(module, Outside) else count_regions(lambda: self.timed[0].call(module))

    @torch.no_grad()
    def loss(self, module: nn.Module) -> float | None:
        """Return the mean loss on the test samples in the certified budget's metric."""
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
