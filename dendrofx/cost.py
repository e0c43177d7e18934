"""Counted cost: what a routed site would take, from multiply-adds and row counts alone, before anything is timed.

A product of M rows takes about as long as the multiply-adds of M + 32 rows: its weights are read once per call, however few
rows there are (F.linear, 4096 -> 2048, 2 threads: 0.6 ms for 1 row, 2.9 for 18, 3.7 for 32, 17 for 256). So a full branch
that runs for a handful of rows in every call is dear, and one that no row needs is free.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

WEIGHT_ROWS = 32


@dataclass(frozen=True)
class RowMacs:
    """Multiply-adds per row of a site's gate, light branch and full branch."""

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
