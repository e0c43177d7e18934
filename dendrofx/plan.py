"""The plan: every candidate site of a model, routed or refused, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tabulate import tabulate


@dataclass(frozen=True)
class SitePlan:
    """What became of one site.

    Attributes:
        name: the site.
        status: "routed" or "refused".
        reason: why, in words; for a refusal also the node that decided it, if any.
        shape: widths of its input, hidden values and output.
        light: the light form, None when refused.
        gate: the gate form, None when refused.
        tolerance: rows with a score below it take the light branch; None when refused.
        activity: share of calibration rows that took the full branch; None without data or when refused.
        compute: multiply-adds executed over those of the original block, gate and light included, on the same rows.
        skill: router skill on calibration rows used for nothing else, None without data.
    """

    name: str
    status: Literal["routed", "refused"]
    reason: str
    shape: str = ""
    light: str | None = None
    gate: str | None = None
    tolerance: float | None = None
    activity: float | None = None
    compute: float | None = None
    skill: float | None = None


@dataclass(frozen=True)
class Plan:
    """The sites in graph order, and how the tolerances came about.

    Attributes:
        sites: one entry per candidate site.
        max_deviation: the budget: mean relative L2 deviation of the model's output from the original's.
        deviation: upper confidence limit of that mean on the calibration rows of the last step; None without data.
        samples: calibration samples that fitted lights, fitted gates, chose among them, and set tolerances.
        multiplier: the global multiplier that the calibration ended at.
    """

    sites: list[SitePlan]
    max_deviation: float
    deviation: float | None = None
    samples: tuple[int, ...] | None = None
    multiplier: float | None = None

    @property
    def routed(self) -> list[SitePlan]:
        """The routed sites."""
        return [s for s in self.sites if s.status == "routed"]

    def __str__(self) -> str:
        rows = [
            [
                s.name,
                s.shape,
                s.light,
                s.gate,
                "" if s.tolerance is None else f"{s.tolerance:.3g}",
                _percent(s.activity),
                _percent(s.compute),
                "" if s.skill is None else f"{s.skill:.2f}",
            ]
            for s in self.routed
        ]
        headers = ["routed site", "shape", "light", "gate", "tolerance", "activity", "MACs", "skill"]
        table = tabulate(rows, headers=headers, tablefmt="simple", disable_numparse=True)
        reasons = [f"{s.status} {s.name}{f' ({s.shape})' if s.shape else ''}: {s.reason}" for s in self.sites]
        lines = [*([table, ""] if rows else []), *reasons, *self._footer()]
        return "\n".join(lines)

    def _footer(self) -> list[str]:
        if self.samples is None or self.deviation is None:
            return [f"tolerances from the bound alone (no calibration data), max_deviation {self.max_deviation:g}"]
        if not self.routed:
            return [f"nothing is routed: the outputs are the original's (budget {self.max_deviation:g})"]
        fit, gate, choose, walk = self.samples
        return [
            f"mean deviation at most {self.deviation:.4g} (95 % limit on {walk} calibration samples),"
            f" budget {self.max_deviation:g}; {fit} samples fitted lights, {gate} gates, {choose} chose among them"
        ]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"
