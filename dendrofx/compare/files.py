"""What a comparison leaves in a folder: its plans, pictures, and of every sweep a CSV; and how all of it is named in a line."""

from __future__ import annotations

import csv
import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dendrofx.compare.records import Record
from dendrofx.gates import NoGate
from dendrofx.machine.files import write_whole

_SIZE, _WORD = re.compile(r"(.*-b)(\d+)(.*)"), re.compile(r"(.*-)(\w+)(\.\w+)")


def write_plans(records: Sequence[Record], folder: Path) -> list[Path]:
    """Write one case's plans, one a batch size; return the files."""
    wrote = []
    for record in {r.batch: r for r in records}.values():
        wrote.append(folder / f"{record.prepared.case.name}-plan-b{record.batch}.json")
        record.prepared.plan.save(wrote[-1])
    return wrote


def write_pictures(records: Sequence[Record], folder: Path, machine: Mapping[str, str]) -> list[Path]:
    """Write the pictures of one case, and its sweeps as CSV.

    Args:
        records: of one case. The trade-off, activity and compute are drawn of those with a sweep, the sites of all, and the case's
            own samples of the largest batch size that routes.
        folder: is there.
        machine: see `describe_machine`.

    Returns:
        The files, the trade-off first.

    Raises:
        OSError: they cannot be written.
    """
    if not records:
        return []
    wrote = {folder / name: data for name, data in {**_pictures(records, machine), **_sweeps(records)}.items()}
    for path, data in wrote.items():
        write_whole(path, data)
    return list(wrote)


def _pictures(records: Sequence[Record], machine: Mapping[str, str]) -> dict[str, bytes]:
    """Return the pictures by the names of their files."""
    from dendrofx.compare import drawing, plots  # matplotlib is slow to import and only needed here
    from dendrofx.compare.site_bars import plot_sites
    from dendrofx.compare.tradeoff import plot_tradeoff

    case, drawn = records[0].prepared.case, {}
    if swept := [r for r in records if r.sweep]:
        drawn["tradeoff"] = plot_tradeoff(swept, machine)
        drawn["activity"] = plots.plot_activity(swept, machine)
        drawn["compute"] = plots.plot_compute(swept, machine)
    if (sites := plot_sites(records, machine)) is not None:
        drawn["sites"] = sites
    if routed := [r for r in records if not r.prepared.refused and _scored(r)]:
        largest = max(routed, key=lambda r: r.batch)
        for picture in case.pictures:
            drawn[picture.name] = picture.draw(largest.prepared.routed, drawing.heading(largest))
            drawing.small_print(drawn[picture.name], [largest], machine, picture.note)
    return {f"{case.name}-{name}.png": drawing.png(figure) for name, figure in drawn.items()}


def _scored(record: Record) -> bool:
    """Return whether rows have scores at every routed site."""
    plan = record.prepared.plan
    return plan.rewrites and not any(isinstance(site.gate, NoGate) for site in plan.routed)


def _sweeps(records: Sequence[Record]) -> dict[str, bytes]:
    """Return the CSV of each sweep by the name of its file."""
    found = {}
    for record in (r for r in records if r.sweep):
        case = record.prepared.case
        order = "" if len(case.orders) == 1 else f"-{record.order}"
        found[f"{case.name}-b{record.batch}-t{record.threads}{order}.csv"] = _csv(record.sweep).encode()
    return found


def wrote_line(paths: Sequence[Path]) -> str:
    """Return what was written, by folder, in lines that fit; names that differ in a size or a last word are written as one.

    Example:
        >>> wrote_line([Path("out/digits-plan-b1.json"), Path("out/digits-plan-b32.json")])
        'Wrote out/: digits-plan-b{1,32}.json'
    """
    folders: dict[Path, dict[tuple[str, str], list[str]]] = {}
    for path in dict.fromkeys(paths):
        found = _SIZE.fullmatch(path.name) or _WORD.fullmatch(path.name)
        start, middle, end = found.groups() if found else (path.name, "", "")
        folders.setdefault(path.parent, {}).setdefault((start, end), []).append(middle)
    parts = [f"{folder}/: {', '.join(_braced(*n, m) for n, m in names.items())}" for folder, names in folders.items()]
    return textwrap.fill(f"Wrote {'; '.join(parts)}", 100, subsequent_indent="  ", break_on_hyphens=False)


def _braced(start: str, end: str, middles: Sequence[str]) -> str:
    return f"{start}{middles[0] if len(middles) == 1 else '{' + ','.join(middles) + '}'}{end}"


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
