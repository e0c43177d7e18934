"""What a routed site costs: counted from its multiply-adds before anything is timed, and predicted from its parts' times after.

**Counted.** A product of M rows takes about as long as the multiply-adds of M + 32 rows: its weights are read once per call,
however few rows there are (F.linear, 4096 -> 2048, 2 threads: 0.6 ms for 1 row, 2.9 for 18, 3.7 for 32, 17 for 256). So a full
branch that runs for a handful of rows in every call is dear, and one that no row needs is free. Good enough to tell which
candidates are worth timing.

**Measured.** gate, light, full and the routing around them are timed apart; a call of M rows of which each is hard with
probability a has a hard row with probability p = 1 - (1 - a)^M, and takes

    gate + light + split                              where none is
    gate + light + gather, scatter + full(a M / p)    where some are
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dendrofx.machine.race import AA_NOISE

WEIGHT_ROWS = 32
NO_GATE = "NoGate()"
BLOCK = "block"  # the name of the original block among the full branches


@dataclass(frozen=True)
class RowMacs:
    """Multiply-adds per row of a site's gate, light branch and full branch, weighted by their operands' bits / 32."""

    gate: int
    light: int
    full: int

    def cost(self, activity: float, rows: float) -> float:
        """Cost of routing over the cost of the full block alone, 1 being no gain.

        Args:
            activity: share of hard rows, in [0, 1].
            rows: rows per call.

        Example:
            >>> round(RowMacs(gate=0, light=10, full=100).cost(activity=0.05, rows=256), 2)
            0.26
        """
        some_hard = 1 - math.pow(1 - activity, rows)
        light = self.light * (rows + WEIGHT_ROWS)
        full = self.full * (activity * rows + WEIGHT_ROWS * some_hard)
        return (self.gate * rows + light + full) / (self.full * (rows + WEIGHT_ROWS))


@dataclass(frozen=True)
class SiteTimes:
    """Measured times of one site's parts at one row count, in ms (medians of turns in one process).

    Attributes:
        rows: rows per call.
        block: the original block on all rows.
        full: by name of the full branch, (hard rows, ms) in ascending order.
        light: by light form and what it reports to its gate ("plain" is nothing).
        gate: by light and gate form.
        split: finding that no row is hard.
        moved: per hard row, gathering and scattering it.
        again: the original block on all rows, timed once more; None where it was not.

    Example:
        >>> full = {"block": ((1, 1.0), (256, 10.0))}
        >>> times = SiteTimes(256, 10.0, full, {("Int8()", "plain"): 2.0}, {("Int8()", "g"): 0.5}, split=0.1, moved=0.0)
        >>> times.predict("Int8()", "g", "plain", "block", activity=0.0)
        2.6
    """

    rows: int
    block: float
    full: Mapping[str, tuple[tuple[int, float], ...]]
    light: Mapping[tuple[str, str], float]
    gate: Mapping[tuple[str, str], float]
    split: float
    moved: float
    again: float | None = None

    @property
    def doubt(self) -> float:
        """How far the block is off from itself, relative, where that is more than a quiet machine's noise; else 0."""
        if self.again is None:
            return 0.0
        off = max(self.block, self.again) / min(self.block, self.again) - 1
        return off if off > AA_NOISE else 0.0

    def knows(self, light: str, gate: str, reports: str) -> bool:
        """Return whether this candidate was timed."""
        return (light, reports) in self.light and (light, gate) in self.gate

    def predict(self, light: str, gate: str, reports: str, full: str, activity: float) -> float:
        """Return the expected ms of a call.

        Args:
            light: its form, as text.
            gate: its form, as text.
            reports: what the light branch reports to the gate.
            full: `"block"` or the full form, as text.
            activity: share of hard rows.
        """
        none = self.light[light, reports]
        if gate == NO_GATE:  # nor a full branch
            return none
        none += self.gate[light, gate] + self.split
        some = 1 - math.pow(1 - activity, self.rows)
        if some == 0:
            return none
        hard = activity * self.rows / some
        counts, ms = [n for n, _ in self.full[full]], [t for _, t in self.full[full]]
        if self.rows == 1:
            # a hard row is the whole call: nothing is moved, and a gate that reads the input skips the light branch
            skipped = self.light[light, reports] if reports == "plain" else 0.0
            return (1 - some) * none + some * (none - skipped + ms[-1])
        return none + some * (float(np.interp(hard, counts, ms)) + self.moved * hard)

    def break_even(self, light: str, gate: str, reports: str, full: str) -> float:
        """Return the activity at which routing takes as long as the block, by bisection; 0 where it never pays, 1 where always."""
        low, high = 0.0, 1.0
        if self.predict(light, gate, reports, full, high) < self.block:
            return 1.0
        for _ in range(40):
            middle = (low + high) / 2
            pays = self.predict(light, gate, reports, full, middle) < self.block
            low, high = (middle, high) if pays else (low, middle)
        return low
