"""What the command line sets for a case."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CaseOptions:
    """What the command line sets for a case.

    Attributes:
        seed: of the split and of synthetic data.
        quick: fewer rows, for a smoke test.
        width, depth: of the cases that are made here, hidden layers; None for a case's own.
        certified: a budget is to be certified, which takes more calibration samples.
        decides: the budget is about decisions: a case with a head is the model with its head.
        user, item: dense features of the rankers, of the user and of a candidate.
    """

    seed: int = 0
    quick: bool = False
    width: int | None = None
    depth: int | None = None
    certified: bool = False
    decides: bool = False
    user: int = 512
    item: int = 128

    def wide(self, own: int) -> int:
        """Return the width, a case's own where none is given."""
        return own if self.width is None else self.width

    def deep(self, own: int) -> int:
        """Return the depth, a case's own where none is given."""
        return own if self.depth is None else self.depth
