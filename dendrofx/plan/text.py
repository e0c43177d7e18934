"""A plan as text: the routed sites as a table, every other site with its reason, and what was measured and shown."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence

from tabulate import tabulate

from dendrofx.plan.entries import SitePlan
from dendrofx.plan.times import ModelTimes

WIDTH = 98  # of a line, two less than the 100 of a terminal: plans inside a cascade's are indented
_HEADERS = [
    "routed site", "shape", "light", "gate", "full", "tolerance", "activity", "compute", "skill",
    "block ms", "predicted", "measured",
]  # fmt: skip


def routed_table(sites: Sequence[SitePlan]) -> str:
    """Return the routed sites as a table."""
    rows = [_row(s) for s in sites]
    return tabulate(rows, headers=_HEADERS, tablefmt="simple", disable_numparse=True, stralign="left")


def race(t: ModelTimes) -> str:
    """Return a race in words."""
    ms = f"{t.scripted_ms:.3g} ms scripted, {t.routed_ms:.3g} ms rewritten"
    where, itself = f"whole model at batch {t.batch}", f"A/A: {100 * t.noise:.1f} % off"
    if not t.pace.reliable:
        return f"{where}: {ms}, UNRELIABLE: {t.pace} ({t.doubt})"
    if t.doubt:
        medians = "noisy" if t.pace.medians_hold else "medians UNRELIABLE"
        return f"{where}: {t.speedup:.2f} x ({itself}); {medians}, {ms}: {t.pace} ({t.doubt})"
    return f"{where}: {ms}, {t.speedup:.2f} x ({itself}){f'; noisy: {t.noisy}' if t.noisy else ''}"


def wrapped(text: str) -> list[str]:
    """Return the lines of a text."""
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def outputs(covered: Mapping[str, float | None], others: Sequence[str]) -> list[str]:
    """Return, where there are several outputs, those that the budget is about, the worst first, and the others."""
    if len(covered) + len(others) < 2:
        return []
    reached = sorted(covered.items(), key=lambda item: -(item[1] or 0.0))
    figures = [name if limit is None else f"{name} at most {limit:.3g}" for name, limit in reached]
    head = "covered: " if None in covered.values() else "deviation of each output: "
    lines = [(head, figures), ("not covered: ", others)]
    return [_fitting(head, items) for head, items in lines if items]


def _fitting(head: str, items: Sequence[str]) -> str:
    """Return as many items as fit a line, and how many more there are."""
    for count in range(len(items), 0, -1):
        rest = f" and {len(items) - count} more" if count < len(items) else ""
        if len(line := head + ", ".join(items[:count]) + rest) <= WIDTH:
            break
    return line


def reasons(sites: list[SitePlan]) -> list[str]:
    """Return a line per site; sites whose reasons differ in names and figures alone (the layers of a deep model) share one."""
    groups: dict[tuple[str, str, str], list[SitePlan]] = {}
    for site in sites:
        groups.setdefault((site.status, site.shape, _without_figures(site.reason)), []).append(site)
    return [_line(status, shape, group) for (status, shape, _), group in groups.items()]


def _line(status: str, shape: str, group: list[SitePlan]) -> str:
    first = group[0].reason
    alike = all(_without_node(s.reason) == _without_node(first) for s in group)
    reason = first if len(group) == 1 else _without_node(first) + ("" if alike else " (of the first; the others alike)")
    return f"{status} {_names([s.name for s in group])}{f' ({shape})' if shape else ''}: {reason}"


def _without_figures(reason: str) -> str:
    """Return a reason without the node at its end, its figures, and the arguments of forms."""
    return re.sub(r"\d+(\.\d+)?(e[+-]\d+)?", "#", re.sub(r"\w+\([^()]*\)", "()", _without_node(reason)))


def _without_node(reason: str) -> str:
    """Return a reason without the node at its end, ` (%fc1)`."""
    return re.sub(r" \(%\w+\)$", "", reason)


def _names(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 2 else f"{names[0]} ... {names[-1]} [{len(names)} sites]"


def _row(site: SitePlan) -> list[str]:
    full = "block" if site.full is None else str(site.full)
    figures = [number(site.block_ms), number(site.predicted_ms), number(site.measured_ms)]
    shares = [percent(site.activity), percent(site.compute), "" if site.skill is None else f"{site.skill:.2f}"]
    return [site.name, site.shape, str(site.light), str(site.gate), full, number(site.tolerance), *shares, *figures]


def number(value: float | None) -> str:
    """Write three digits; nothing for None."""
    return "" if value is None else f"{value:.3g}"


def percent(share: float | None) -> str:
    """Write a percentage with one digit behind the point; nothing for None."""
    return "" if share is None else f"{100 * share:.1f} %"
