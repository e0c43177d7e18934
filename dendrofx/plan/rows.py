"""The sites of a plan as rows of a table: what is alike in one, and each reason once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dendrofx.plan.entries import SitePlan
from dendrofx.plan.folding import called, grouped

HEADERS = ("site", "", "light form, gate", "full rows", "ms", "gain")
SHARE = "compute"  # the last column where nothing was timed: what a site executes, of its block
_COSTS, _PAYS, _NOT_ROUTED = "light costs ", "pays below ", "; not routed: "


@dataclass(frozen=True)
class TableRow:
    """One line of a plan's table.

    Attributes:
        sites: names, alike ones folded.
        status: of a `SitePlan`.
        form: light form and gate; of a refusal the reason.
        full: share of calibration rows that took the full branch; of several sites the mean.
        ms: the block's and the routed site's, of several sites together; empty where nothing was timed.
        gain: their quotient, after `~` where it is predicted; where nothing was timed the share of the block's multiply-adds.
    """

    sites: str
    status: str
    form: str
    full: str = ""
    ms: str = ""
    gain: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        """What stands in the columns."""
        return (self.sites, self.status, self.form, self.full, self.ms, self.gain)


def table_rows(sites: Sequence[SitePlan]) -> list[TableRow]:
    """Return the rows of a plan's table: what is rewritten in graph order, then what is refused, by reason."""
    kept = [s for s in sites if s.status != "refused"]
    alike = grouped(kept, lambda s: (s.status, str(s.light), str(s.gate), str(s.full), s.shape))
    return [*map(_kept, alike), *_refused(sites)]


def timed(sites: Sequence[SitePlan]) -> bool:
    """Return whether any of the sites was timed."""
    return any(s.block_ms is not None and _after(s) is not None for s in sites)


def predicted(sites: Sequence[SitePlan]) -> bool:
    """Return whether the time of any routed site is predicted alone."""
    return any(s.status == "routed" and s.measured_ms is None and s.predicted_ms is not None for s in sites)


def notes(sites: Sequence[SitePlan]) -> list[str]:
    """Return what else is to be said of routed sites, each once."""
    said: dict[str, list[str]] = {}
    routed = [s for s in sites if s.status == "routed"]
    for site in routed:
        for part in site.reason.split("; "):
            if part and not part.startswith((_COSTS, _PAYS)):
                said.setdefault(part, []).append(site.name)
    return [part if len(names) == len(routed) else f"{called(names)}: {part}" for part, names in said.items()]


def _kept(group: list[SitePlan]) -> TableRow:
    first, names = group[0], called([s.name for s in group])
    shares = [s.activity for s in group if s.activity is not None]
    full = percent(sum(shares) / len(shares)) if shares else ""
    before, after = [s.block_ms for s in group], [_after(s) for s in group]
    if None in before or None in after:
        share = [s.compute for s in group if s.compute is not None]
        return TableRow(names, first.status, _form(first), full, "", percent(sum(share) / len(share)) if share else "")
    a, b = (sum(v for v in values if v is not None) for values in (before, after))
    guess = "~" if predicted(group) else ""
    gain = f"{guess}{a / b:.2f} x" if b else ""
    return TableRow(names, first.status, _form(first), full, f"{number(a)} -> {guess}{number(b)}", gain)


def _after(site: SitePlan) -> float | None:
    return site.predicted_ms if site.measured_ms is None else site.measured_ms


def _form(site: SitePlan) -> str:
    """Return what runs at a site in place of its block."""
    if site.status == "exact":
        return f"{site.full} on every row" + ("" if site.block_ms is not None else f", {site.reason}")
    if site.status == "light" and site.light is None:
        return f"{site.full}, {site.reason}"
    if site.status == "light":
        full = "" if site.full is None else f"; {site.full} in the full one"
        return f"{site.light}, {site.reason}{full}"
    return f"{site.light}, {site.gate}" + ("" if site.full is None else f", full {site.full}")


def _refused(sites: Sequence[SitePlan]) -> list[TableRow]:
    """Return a row for each reason not to route; reasons that differ in names and figures alone (deep models) share one."""
    reasons = {s.name: without_node(_reason(s)) for s in sites if _reason(s)}
    groups = grouped([s for s in sites if s.name in reasons], lambda s: without_figures(reasons[s.name]))
    return [_reasoned(group, [reasons[s.name] for s in group]) for group in groups]


def _reason(site: SitePlan) -> str:
    """Return why a site is not routed; empty where it is."""
    return site.reason if site.status == "refused" else site.reason.partition(_NOT_ROUTED)[2]


def _reasoned(group: list[SitePlan], reasons: list[str]) -> TableRow:
    figures = "" if len(set(reasons)) == 1 else " (figures of the first)"
    return TableRow(called([s.name for s in group]), "refused", reasons[0] + figures)


def without_figures(reason: str) -> str:
    """Return a reason without its figures, the arguments of forms, and the names of nodes."""
    return re.sub(r"%\w+|\d+(\.\d+)?(e[+-]\d+)?", "#", re.sub(r"\w+\([^()]*\)", "()", reason))


def without_node(reason: str) -> str:
    """Return a reason without the node at its end, ` (%fc1)`."""
    return re.sub(r" \(%\w+\)$", "", reason)


def number(value: float | None) -> str:
    """Write three digits; nothing for None."""
    return "" if value is None else f"{value:.3g}"


def percent(share: float | None) -> str:
    """Write a percentage with one digit behind the point; nothing for None."""
    return "" if share is None else f"{100 * share:.1f} %"
