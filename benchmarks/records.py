"""What is measured, as plain records: the source of the tables, of the JSON and of the plots."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.variants import UNTIMED, Prepared, Variant
from dendrofx.inputs import Inputs
from dendrofx.measure import (
    activity,
    agreement,
    counted_outputs,
    deviation,
    executed_macs,
    executed_work,
    model_macs,
    outputs,
)
from dendrofx.timing import Race, Timing, race

AGAIN = "scripted again"


@dataclass(frozen=True)
class Quality:
    """What a variant computes on the test rows: shares of 1, and deviations per sample."""

    activity: float | None
    effective_compute: float
    plain_macs: float
    mean: float
    p99: float
    max: float
    agreement: float | None

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
    """One table: a case at one batch size."""

    prepared: Prepared
    batch: int
    threads: int
    rows: list[Row]
    race: Race
    noisy: bool
    sweep: list[Mapping[str, Any]] = field(default_factory=list)
    ablation: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def aa_ratio(self) -> float:
        """The scripted baseline's median against itself."""
        return self.race.ratio(AGAIN, "scripted")

    def row(self, name: str) -> Row | None:
        """A row by name."""
        return next((r for r in self.rows if r.variant.name == name), None)

    def speedup(self, row: Row, over: str) -> float | None:
        """Median of `over` over median of the row."""
        return None if row.timing is None else self.race.timings[over].p50 / row.timing.p50

    def to_json(self) -> dict[str, Any]:
        """Fractions, not percent; the oracle's latency is null."""
        return {
            "case": self.prepared.case.name,
            "batch": self.batch,
            "threads": self.threads,
            "aa_ratio": self.aa_ratio,
            "noisy": self.noisy,
            "refused": self.prepared.refused,
            "transform_s": self.prepared.transform_s,
            "variants": [self._variant(r) for r in self.rows],
            "sweep": self.sweep,
            "ablation": self.ablation,
            "plan": self.prepared.plan.to_json(),
        }

    def _variant(self, row: Row) -> dict[str, Any]:
        timing, quality, variant = row.timing, row.quality, row.variant
        return {
            "name": variant.name,
            "latency_ms": None if timing is None else {"p50": timing.p50, "p95": timing.p95},
            "speedup_vs_eager": self.speedup(row, "eager"),
            "speedup_vs_scripted": self.speedup(row, "scripted"),
            "rows_per_s": None if timing is None else self.batch / timing.p50 * 1e3,
            "activity": quality.activity,
            "effective_compute": quality.effective_compute,
            "plain_macs": quality.plain_macs,
            "deviation": quality.deviation(),
            "agreement": quality.agreement,
            "first_call_ms": variant.first_call_ms,
            "weight_bytes": variant.weight_bytes,
            "file_bytes": variant.file_bytes,
        }


class Bench:
    """Measures variants of one case at one batch size."""

    def __init__(self, prepared: Prepared, batch: int, seconds: float, seed: int) -> None:
        self.prepared, self.batch, self.seconds, self.seed = prepared, batch, seconds, seed
        test = prepared.case.test
        self.batches = [Inputs((rows,)) for rows in test.split(batch)]
        self.reference = outputs(prepared.case.model, self.batches)
        self.macs = model_macs(prepared.case.model, self.batches)
        wrapped = torch.cat([test] * -(-batch // len(test)))  # a batch larger than the test set repeats its rows
        self.timed = [rows for rows in wrapped.split(batch) if len(rows) == batch]

    def quality(self, module: nn.Module, counted: bool) -> Quality:
        """Outputs on every test row against the eager original's, and what was executed for them."""
        if counted:
            output, counts = counted_outputs(module, self.batches)
            share = executed_work(counts, self.macs) / self.macs
            plain = executed_macs(counts, self.macs) / self.macs
            active: float | None = activity(counts)
        else:
            output, share, plain, active = outputs(module, self.batches), 1.0, 1.0, None
        far = deviation(self.reference, output)
        agrees = agreement(self.reference, output) if self.prepared.case.classes else None
        return Quality(active, share, plain, float(far.mean()), float(far.quantile(0.99)), float(far.max()), agrees)

    def time(self, modules: Mapping[str, nn.Module]) -> Race:
        """Time modules in turns on the same batches."""
        calls: dict[str, Callable[[int], object]] = {n: partial(_call, m, self.timed) for n, m in modules.items()}
        with torch.no_grad():
            return race(calls, self.seconds, self.seed)

    def measure(self, variants: Mapping[str, Variant]) -> Record:
        """One table."""
        quality = {name: self.quality(v.module, v.counted) for name, v in variants.items()}
        timed = {name: v.module for name, v in variants.items() if name not in UNTIMED}
        result = self.time({**timed, AGAIN: variants["scripted"].module})
        rows = [Row(v, quality[name], result.timings.get(name)) for name, v in variants.items()]
        noisy = result.noisy("scripted", AGAIN)
        return Record(self.prepared, self.batch, torch.get_num_threads(), rows, result, noisy)


def _call(module: nn.Module, batches: list[Tensor], number: int) -> object:
    return module(batches[number % len(batches)])
