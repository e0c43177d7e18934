"""What was measured, as plain records: the source of the tables, of the JSON and of the plots."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dendrofx.compare.prepare import Prepared
from dendrofx.compare.quality import Quality
from dendrofx.compare.samples import Order
from dendrofx.compare.variants import Variant
from dendrofx.machine.pace import Pace, pace
from dendrofx.machine.race import Race, Timing

AGAIN = "scripted again"


@dataclass(frozen=True)
class Row:
    """A variant's line.

    Attributes:
        timing: None for the oracle, whose time means nothing.
        regions: parallel regions that a call opens; None for a peer, whose own threads nobody sees, and where not counted.
    """

    variant: Variant
    quality: Quality
    timing: Timing | None
    regions: int | None = None

    @property
    def ms(self) -> float | None:
        """Its median."""
        return None if self.timing is None else self.timing.p50

    @property
    def loss(self) -> float:
        """The mean loss that the budget is about."""
        return self.quality.risk


@dataclass(frozen=True)
class BusyRace:
    """The original and what replaces it, timed beside workers that compute.

    A call beside them either runs through or waits for a core many times its own length, and a median is one or the other by
    chance: so these are means, which a server's throughput goes by.

    Attributes:
        workers: processes with torch's default settings.
        race: of the original twice and of each row; its `threads` are those of a call.
    """

    workers: int
    race: Race

    @property
    def threads(self) -> int:
        """That a call could use."""
        return self.race.threads

    @property
    def rows(self) -> list[str]:
        """The rows beside the original."""
        return [name for name in self.race.timings if name not in ("scripted", AGAIN)]

    @property
    def again(self) -> float:
        """The original's mean against itself."""
        return self.mean(AGAIN) / self.mean("scripted")

    def mean(self, name: str) -> float:
        """Mean of a row's calls, ms."""
        return statistics.fmean(self.race.timings[name].ms)

    def speedup(self, name: str) -> float | None:
        """Mean call of the original, of both its entries, over a row's; None where it was not timed."""
        if name not in self.race.timings:
            return None
        return (self.mean("scripted") + self.mean(AGAIN)) / 2 / self.mean(name)

    def to_json(self) -> dict[str, Any]:
        """Every row, the original first."""
        named = [
            {
                "name": name,
                "latency_ms": {"mean": self.mean(name), **(latency(self.race.timings[name]) or {})},
                "speedup_vs_scripted": self.speedup(name),
            }
            for name in ("scripted", *self.rows)
        ]
        return {"workers": self.workers, "threads": self.threads, "aa_ratio": self.again, "variants": named}


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
    busy: list[BusyRace] = field(default_factory=list)  # beside workers: on as many threads, and on one
    limit: float | None = None  # what a lossless row can gain at most, counted; see `Limit`

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
        """Return a row by name."""
        return next((r for r in self.rows if r.variant.name == name), None)

    def ratio(self, name: str, over: str = "scripted") -> float | None:
        """Median of one row over that of another; None where either is not there or not timed."""
        row, other = self.row(name), self.row(over)
        if row is None or other is None or row.ms is None or other.ms is None:
            return None
        return row.ms / other.ms

    @property
    def reached(self) -> float | None:
        """The share of the limit that the main row has reached, over the scripted baseline."""
        gain = self.speedup(self.routed, "scripted")
        refused = self.prepared.refused or self.unreliable
        return None if self.limit is None or gain is None or refused else gain / self.limit

    @property
    def published(self) -> float | None:
        """What others have published for this table's order and batch size; None where they have not."""
        found = self.prepared.case.published
        return None if found is None or found.batch != self.batch else found.gains.get(self.order)

    @property
    def certificate(self) -> dict[str, Any] | None:
        """What was shown for the main row; None where nothing was, or was asked for."""
        shown = self.prepared.plan.certificate
        return None if shown is None else shown.to_json()

    def speedup(self, row: Row, over: str) -> float | None:
        """Median of `over` over median of the row."""
        return None if row.ms is None else self.race.timings[over].p50 / row.ms

    def rows_per_s(self, row: Row) -> float | None:
        """Samples per second."""
        return None if row.ms is None else self.batch / row.ms * 1e3

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
            "busy": [b.to_json() for b in self.busy],
            "counted_limit": self.limit,
            "published_by_others": self.published,
            "certificate": self.certificate,
            "plan": self.prepared.plan.to_json(),
            "plans": {name: plan.to_json() for name, plan in self.prepared.plans.items()},
        }

    def _variant(self, row: Row) -> dict[str, Any]:
        quality, variant = row.quality, row.variant
        main = variant.name == self.prepared.main and bool(self.prepared.plan.budget)
        return {
            "name": variant.name,
            "latency_ms": latency(row.timing),
            "speedup_vs_eager": self.speedup(row, "eager"),
            "speedup_vs_scripted": self.speedup(row, "scripted"),
            "rows_per_s": self.rows_per_s(row),
            "activity": quality.activity,
            "live": quality.live,
            "effective_compute": quality.effective_compute,
            "plain_macs": quality.plain_macs,
            "deviation": quality.deviation(),
            **({"output": quality.output} if quality.output else {}),
            "agreement": quality.agreement,
            "loss": quality.loss,
            "first_call_ms": variant.first_call_ms,
            "parallel_regions": row.regions,
            "weight_bytes": variant.weight_bytes,
            "file_bytes": variant.file_bytes,
            **({"certified": self.certificate is not None} if main else {}),
        }


def latency(timing: Timing | None) -> dict[str, float] | None:
    """Return median and 95th percentile for the JSON, ms."""
    return None if timing is None else {"p50": timing.p50, "p95": timing.p95}


def pace_of(race: Race, name: str) -> dict[str, Any]:
    """Return latency and speed-up over the scripted baseline for the JSON of a study."""
    return {"latency_ms": latency(race.timings[name]), "speedup_vs_scripted": race.ratio("scripted", name)}
