"""The comparison of a case: a table for each batch size and order, as they are measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from dendrofx.compare.bench import Bench
from dendrofx.compare.case import Case
from dendrofx.compare.formats import format_variants
from dendrofx.compare.prepare import Asked, prepare
from dendrofx.compare.records import Record
from dendrofx.compare.sweep import run_sweep
from dendrofx.compare.variants import Variant, build_variants
from dendrofx.machine.progress import progress, within
from dendrofx.search.remembered import Remembered, remembering


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        seconds: of a race.
        sweep: whether the tolerances of what is routed are swept.
        seed: of every order and random choice.
        regions: whether the parallel regions that each row opens are counted, which takes a call of each.
        formats: whether the main row is also measured in the other formats that it can be saved in.
    """

    seconds: float
    sweep: bool
    seed: int = 0
    regions: bool = True
    formats: bool = False


def compare_case(
    case: Case,
    asked: Asked,
    sizes: Sequence[int],
    effort: Effort,
    peers: Mapping[str, Variant] | None = None,
    missing: Mapping[str, str] | None = None,
) -> Iterator[tuple[Bench, Mapping[str, Variant], Record]]:
    """Measure a case, table by table.

    Args:
        case: the model and its samples.
        asked: of `transform`.
        sizes: samples per call, one `transform` each.
        effort: how much is measured.
        peers: what else could be used, as rows.
        missing: those that did not run, and why.

    Yields:
        What measured a table, its rows, and the table.
    """
    known = Remembered()  # what is fitted for one batch size serves the others
    for number, batch in enumerate(sizes, 1):
        with within(f"{case.name}, batch {batch} ({number} of {len(sizes)})"):
            with remembering(known):
                prepared = prepare(case, batch, asked)
            saved, unsaved = format_variants(prepared) if effort.formats else ({}, {})
            variants = {**build_variants(prepared, effort.seed), **saved, **(peers or {})}
            tables = []
            for order in progress(case.orders, "measuring", "order"):
                bench = Bench(prepared, batch, effort.seconds, effort.seed, order)
                record = bench.measure(variants, {**unsaved, **(missing or {})}, effort.regions)
                if effort.sweep and prepared.routed.plan.routed and not prepared.refused:
                    record.sweep.extend(run_sweep(bench, variants))
                tables.append((bench, variants, record))
        yield from tables
