"""What the command line sets for a case."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CaseOptions:
    """What the command line sets for a case.

    Attributes:
        seed: of the split and of synthetic data.
        quick: fewer rows, for a smoke test.
        width: of the `wide` case.
        depth: of the `wide` case, in hidden layers.
        certified: a budget is to be certified, which takes more calibration samples.
        decides: the budget is about decisions: a case with a head is the model with its head.
    """

    seed: int = 0
    quick: bool = False
    width: int = 1024
    depth: int = 3
    certified: bool = False
    decides: bool = False
