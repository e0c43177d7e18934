"""What a comparison leaves in a folder: its plans, and of every sweep a CSV and pictures, with the trade-off of all of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dendrofx.compare.records import Record
from dendrofx.machine.files import write_whole


def write_plans(records: Sequence[Record], folder: Path) -> list[Path]:
    """Write one case's plans, one a batch size; return the files."""
    wrote = []
    for record in {r.batch: r for r in records}.values():
        wrote.append(folder / f"{record.prepared.case.name}-plan-b{record.batch}.json")
        record.prepared.plan.save(wrote[-1])
    return wrote


def write_pictures(records: Sequence[Record], folder: Path, machine: Mapping[str, str]) -> list[Path]:
    """Write the sweeps of one case: CSV, pictures of each, and the trade-off of all of them.

    Args:
        records: of one case; those without a sweep are left out.
        folder: is there.
        machine: see `describe_machine`.

    Returns:
        The trade-off, and the pattern of the others' names; nothing where nothing was swept.

    Raises:
        OSError: they cannot be written.
    """
    swept = [r for r in records if r.sweep]
    if not swept:
        return []
    from dendrofx.compare import plots  # matplotlib is slow to import and only needed here
    from dendrofx.compare.tradeoff import plot_tradeoff

    case = swept[0].prepared.case
    wrote: dict[Path, bytes] = {}
    for record in swept:
        order = "" if len(case.orders) == 1 else f"-{record.order}"
        stem = f"{case.name}-b{record.batch}-t{record.threads}{order}"
        wrote[folder / f"{stem}.csv"] = _csv(record.sweep).encode()
        for kind, figure in plots.plot_sweep(record, machine["cpu"]).items():
            wrote[folder / f"{stem}-{kind}.png"] = plots.png(figure)
    main = folder / f"{case.name}-tradeoff.png"
    wrote[main] = plots.png(plot_tradeoff(swept, machine["cpu"]))
    for path, data in wrote.items():
        write_whole(path, data)
    return [main, folder / f"{case.name}-b*.png", folder / f"{case.name}-b*.csv"]


def _csv(points: Sequence[Any]) -> str:
    rows = [
        {k: v for k, v in p.items() if not isinstance(v, dict)}
        | {f"{k}_{inner}": v for k, d in p.items() if isinstance(d, dict) for inner, v in d.items()}
        for p in points
    ]
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()
