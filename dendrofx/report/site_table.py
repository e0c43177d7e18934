"""The table of routed sites: one row a site, and where there are many, first one row for those alike."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from dendrofx.gates import NoGate
from dendrofx.plan.rows import number
from dendrofx.report.blocks import pattern
from dendrofx.report.collect import Collected, SiteTimes
from dendrofx.report.tables import table
from dendrofx.values.counts import CASCADE

MANY_SITES = 8
TIMES = "x\N{NO-BREAK SPACE}"  # how often, on one line
HEADERS = [
    "Site", "Light form", "Gate", "Full", "Tolerance", "Block, ms", "Light + gate, ms", "Full, ms", "Rows in full",
]  # fmt: skip


@dataclass(frozen=True)
class _Site:
    """What runs at a routed site; of a cascade, at the model."""

    name: str
    light: str
    gate: str
    full: str
    tolerance: float | None
    times: SiteTimes | None
    hard: int
    rows: int


def sites(found: Collected) -> str:
    """Return what runs at each routed site; of a cascade, the model."""
    given = [_site(found, name, *rows) for name, rows in found.shares.items()]
    alike: dict[str, list[_Site]] = {}
    for site in given:
        alike.setdefault(re.sub(r"\d+", "#", site.name), []).append(site)
    how = f"times of a call of {found.batch} samples, node by node, not scripted"
    each = table(f"Routed sites; {how}", HEADERS, [_row([s]) for s in given], range(4, 9))
    if len(given) <= MANY_SITES or len(alike) == len(given):
        return each
    caption = f"{len(given)} routed sites, those of one place in every layer in one row; means of {how}"
    folded = table(caption, HEADERS, [_row(group) for group in alike.values()], range(5, 9))  # spans break
    return f"{folded}<details><summary>Each of the {len(given)} sites</summary>{each}</details>"


def _site(found: Collected, name: str, hard: int, rows: int) -> _Site:
    cascade, times = found.plan.cascade, found.times.get(name)
    if name == CASCADE and cascade is not None:
        full = "original" if cascade.full is None else str(cascade.full)
        return _Site(name, cascade.light, str(cascade.gate), full, cascade.tolerance, times, hard, rows)
    site = next(s for s in found.plan.routed if s.name == name)
    full = "none" if isinstance(site.gate, NoGate) else "block" if site.full is None else str(site.full)
    return _Site(name, str(site.light), str(site.gate), full, site.tolerance, times, hard, rows)


def _row(group: Sequence[_Site]) -> list[str]:
    """Return the cells of sites that are alike: their forms, the span of their tolerances, mean times and all rows."""
    name = group[0].name if len(group) == 1 else f"{pattern(s.name for s in group)} {TIMES}{len(group)}"
    forms = [_counted([getattr(s, part) for s in group]) for part in ("light", "gate", "full")]
    rows = f"{sum(s.hard for s in group):,} of {sum(s.rows for s in group):,}"
    return [name, *forms, _span([s.tolerance for s in group]), *_ms([s.times for s in group if s.times]), rows]


def _counted(forms: Sequence[str]) -> str:
    """Return each form once, with how many sites have it where they differ."""
    counts = Counter(forms)
    return forms[0] if len(counts) == 1 else ", ".join(f"{form} {TIMES}{count}" for form, count in counts.most_common())


def _span(values: Sequence[float | None]) -> str:
    known = sorted(v for v in values if v is not None)
    ends = [number(v) for v in (known[0], known[-1])] if known else [""]
    return ends[0] if ends[0] == ends[-1] else f"{ends[0]} to {ends[1]}"


def _ms(times: Sequence[SiteTimes]) -> list[str]:
    if not times:
        return ["", "", ""]
    blocks = [t.block for t in times if t.block is not None]
    light, gate, full = (fmean(getattr(t, part) for t in times) for part in ("light", "gate", "full"))
    return [number(fmean(blocks)) if blocks else "", f"{light:.3g} + {gate:.3g}", number(full)]
