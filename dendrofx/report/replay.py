"""Per-row scores, recorded once and replayed at any tolerance: what a slider moves.

A row is light where `score < tolerance`. A sample of which a share `s` of the squared error is in light rows deviates by

    sqrt(full^2 + s (light^2 - full^2))

between its deviation with no row light and that with every row light, both measured. With one site that every sample passes with
one row, and with a cascade, `s` is 0 or 1 and the replay is exact. Elsewhere it is a prediction: errors of rows and sites are taken
to add as squares do, each row's by its own error at the site over the site's weight.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dendrofx.runtime.scores import UNJUDGED

FLOAT32_MAX = float(np.finfo(np.float32).max)
FARTHEST = 1e9  # in place of an infinite deviation
STEPS = 160


@dataclass(frozen=True)
class Figures:
    """What a module does at some tolerances: shares of 1.

    Attributes:
        activity: share of the sites' multiply-adds whose rows go full.
        hard: rows that go full, over all sites.
        mean, p99: of the deviation over samples.
    """

    activity: float
    hard: int
    mean: float
    p99: float


@dataclass(frozen=True)
class Replay:
    """Recorded rows, by site.

    Attributes:
        sites: names; units: a site's tolerance at factor 1; macs: multiply-adds of a row of its block.
        score, share: f32[rows]; site, sample: i32[rows].
        light, full: f32[samples], deviation with every row light and with none.
        exact: see above.
        chosen: the module's own factor; None where its tolerances are no multiple of the units.
    """

    sites: tuple[str, ...]
    units: tuple[float, ...]
    macs: tuple[int, ...]
    score: NDArray[np.float32]
    share: NDArray[np.float32]
    site: NDArray[np.int32]
    sample: NDArray[np.int32]
    light: NDArray[np.float32]
    full: NDArray[np.float32]
    exact: bool
    chosen: float | None

    @property
    def rows(self) -> int:
        """Rows of all sites."""
        return len(self.score)

    def tolerances(self, factor: float) -> dict[str, float]:
        """Return each site's tolerance at a factor."""
        return {n: min(factor * u, FLOAT32_MAX) for n, u in zip(self.sites, self.units, strict=True)}

    def at(self, factor: float) -> Figures:
        """Return the figures at a factor."""
        limits = np.array(list(self.tolerances(factor).values()), np.float32)
        easy = self.score < limits[self.site]
        macs = np.array(self.macs, np.float64)[self.site]
        full, light = (np.minimum(a.astype(np.float64), FARTHEST) for a in (self.full, self.light))
        share = np.bincount(self.sample[easy], self.share[easy].astype(np.float64), len(full))
        far = np.sqrt(np.maximum(full**2 + share * (light**2 - full**2), 0))
        active = float(macs[~easy].sum() / max(macs.sum(), 1))
        return Figures(active, int((~easy).sum()), float(far.mean()), float(np.quantile(far, 0.99)))

    def factor_at(self, activity: float) -> float:
        """Return the smallest factor at which about this share of the rows goes full."""
        ratio = np.sort(self.score.astype(np.float64) / np.array(self.units)[self.site])
        ratio = ratio[np.isfinite(ratio)]
        place = min(int((1 - activity) * len(self.score)), len(ratio) - 1)
        return float(ratio[place]) * (1 + 1e-6) if len(ratio) else 0.0

    @property
    def all_light(self) -> float:
        """Factor at which every row that can be judged is light."""
        return 2 * UNJUDGED / min(self.units)

    def positions(self) -> list[float]:
        """Return the factors that a slider stops at, ascending: closer together where few rows go full."""
        found = {0.0, self.all_light, *(self.factor_at((k / STEPS) ** 2) for k in range(STEPS + 1))}
        return sorted(f for f in found | ({self.chosen} if self.chosen is not None else set()) if f <= self.all_light)

    def packed(self) -> dict[str, Any]:
        """Return it for the page: arrays as base64 of little-endian values."""
        arrays = {n: _base64(getattr(self, n)) for n in ("score", "share", "site", "sample", "light", "full")}
        return {"sites": self.sites, "units": self.units, "macs": self.macs, **arrays}


def _base64(values: NDArray[Any]) -> str:
    kind = "<f4" if values.dtype.kind == "f" else "<i4"
    return base64.b64encode(np.ascontiguousarray(values).astype(kind).tobytes()).decode("ascii")
