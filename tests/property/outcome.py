"""What became of a random module.

A call may be refused by an error and may be right. What is wrong without a word is sorted by the call that showed it:

    1 sizes      right on the example's sizes, wrong on others; or the original raises there and the result does not
    2 outputs    an output misses the budget that the plan was made for
    3 hooks      wrong already on calls like the example's, and the module has hooks that change values or a replaced forward
    3 words      "equal to the model", and nothing was run
    4 flags      right on the example's flags and arguments, wrong where others are given or some are left out
    5 caller     what the caller owns changed; or the result's state changes its answers where the original's does not
    6 values     any other output that differs
    7 script     what was accepted, scripted, saved and loaded computes something else
    8 unscripted what was accepted does not script, save, load, or run after that: not silent, but wrong
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tests.property.draft import Draft
from tests.property.how import How

SIZED, OUTPUTS, HOOKS, WORDS = "1 sizes", "2 outputs", "3 hooks", "3 words"
FLAGGED, CALLER, VALUES, SCRIPT, UNSCRIPTED = "4 flags", "5 caller", "6 values", "7 script", "8 unscripted"
KINDS = (SIZED, OUTPUTS, HOOKS, WORDS, FLAGGED, CALLER, VALUES, SCRIPT, UNSCRIPTED)


@dataclass
class Outcome:
    """What became of one module.

    Attributes:
        refused: transform's message, or that of a call like the example's.
        crashed: an error that is none of the project's.
        wrong: by kind, the first case of it.
        refused_calls: calls that the original takes and the result does not, by what they are.
        skipped: checks that could not be made.
    """

    draft: Draft
    how: How
    refused: str = ""
    crashed: str = ""
    wrong: dict[str, str] = field(default_factory=dict)
    refused_calls: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def valid(self) -> bool:
        """Whether it is a model that must be accepted: a function of its inputs, which can be copied.

        Sizes do not matter here: a model that export takes at one size only may be accepted at that size.
        """
        return not self.draft.invalid

    @property
    def accepted(self) -> bool:
        """Whether transform took it, and the result takes calls like the example's."""
        return not self.refused and not self.crashed

    def __str__(self) -> str:
        words = [f"{k}: {v}" for k, v in self.wrong.items()]
        ended = (
            f"refused: {self.refused}" if self.refused else f"crashed: {self.crashed}" if self.crashed else "accepted"
        )
        return "\n".join([self.draft.source(), ", ".join(self.draft.features), str(self.how), ended, *words])
