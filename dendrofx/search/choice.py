"""A choice: what each site is given, and why the others are left as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from dendrofx.graph.sites import Refusal, Site
from dendrofx.search.choose import Candidate
from dendrofx.search.estimates import CostEstimate


@dataclass(frozen=True)
class Choice:
    """By site name.

    Attributes:
        chosen: the candidates of the sites that are routed.
        prices: what they cost; of a refused site what its cheapest candidate would.
        refused: why sites are not routed.
        exact: whether sites that are not routed may run in an exact form.
    """

    chosen: Mapping[str, Candidate] = field(default_factory=dict)
    prices: Mapping[str, CostEstimate] = field(default_factory=dict)
    refused: Mapping[str, Refusal] = field(default_factory=dict)
    exact: bool = False

    def without(self, sites: Mapping[Site, str]) -> Choice:
        """Return the choice without some sites, each with the reason."""
        gone = {s.name: Refusal(s.name, reason, s.nodes[-1]) for s, reason in sites.items()}
        kept = {n: c for n, c in self.chosen.items() if n not in gone}
        return replace(self, chosen=kept, refused={**self.refused, **gone})

    def within(self, decided: Choice) -> Choice:
        """Return the choice for the sites that another one routes; all others stay as they were decided."""
        chosen = {n: c for n, c in self.chosen.items() if n in decided.chosen}
        return replace(self, chosen=chosen, refused={**self.refused, **decided.refused}, exact=decided.exact)
