"""What exploring found: by site the candidates, what their errors do to the model's output, and rows to time them on."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from dendrofx.graph.sites import Refusal
from dendrofx.search.choose import Candidate


@dataclass(frozen=True)
class Explored:
    """By site name.

    Attributes:
        found: the candidates, for sites that have any.
        weights: the site's error that moves the model's output by one unit of deviation.
        rows: f32[N, in], rows that reach the site, for timing.
        per_sample: rows that one sample brings to the site.
        refused: sites without a candidate.
    """

    found: Mapping[str, tuple[Candidate, ...]] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    rows: Mapping[str, Tensor] = field(default_factory=dict)
    per_sample: Mapping[str, float] = field(default_factory=dict)
    refused: Mapping[str, Refusal] = field(default_factory=dict)

    def only(self, chosen: Mapping[str, Candidate], rows: Container[str]) -> Explored:
        """Return it with the chosen candidates alone, and the rows of some sites."""
        kept = {name: (chosen[name],) if name in chosen else () for name in self.found}
        return replace(self, found=kept, rows={n: r for n, r in self.rows.items() if n in rows})
