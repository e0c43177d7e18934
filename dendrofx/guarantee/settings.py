"""Settings of a module, from safest to fastest, fixed on one set of samples and tested on another.

Every setting that was searched has an estimated risk and a predicted cost. Those that another one beats in both are dropped; the
rest, in the order of their risk, are the path of `sequence.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from tabulate import tabulate

from dendrofx.guarantee.budget import Budget
from dendrofx.guarantee.sequence import Tested, fixed_sequence, why_none
from dendrofx.values.counts import Counts

NAME_WIDTH = 36  # of a setting in a table of 100 columns
WORTH = 0.95
OFF = 0.15


class Maker(Protocol):
    """What a setting's module is made from."""

    def made(self, setting: Setting) -> Any:  # noqa: ANN401  (a RoutedModule, which stands above)
        """Return the module with a setting in force, with its plan and certificate."""


@dataclass(frozen=True)
class Setting:
    """One way to set a module: branches, and a tolerance at each gate.

    Attributes:
        name: what it is: light forms and gate, in words.
        tolerances: by site.
        risk: estimated on the samples of the search.
        cost: predicted, over the original's.
        activity: share that takes the full branch, on the samples of the search.
        source: what was searched: a light model with its gate, or a set of branches.
        tested: what the test samples said; None where the walk stopped before it.
        easy_share: of the test samples, those that took the light branch.
        counts: what was executed for the test samples, where rows are routed.
        largest: deviation of a sample of the search, and of a test sample; None where nobody asked for it.
        kin: of those with the same, the riskier one loses what the safer one loses, and more; empty for none. See `path.py`.
        off: by how many of the samples that it was estimated on the risk may be off; see `path.py`.
        maker: what makes its module, once it was tested.
    """

    name: str
    tolerances: dict[str, float]
    risk: float
    cost: float
    activity: float
    source: Any = field(repr=False)
    tested: Tested | None = None
    easy_share: float = 1.0
    counts: Counts = field(default_factory=dict, repr=False)
    largest: tuple[float | None, float | None] = (None, None)
    kin: str = ""
    off: float = OFF
    maker: Maker | None = field(default=None, repr=False, compare=False)

    @property
    def accepted(self) -> bool:
        """Whether the test samples show the budget to hold."""
        return self.tested is not None and self.tested.accepted

    def within(self, most: float | None) -> bool:
        """Return whether no test sample deviates by more than `most`; None allows any."""
        found = self.largest[1]
        return most is None or (found is not None and found <= most)

    @property
    def figures(self) -> tuple[str, ...]:
        """Cost, activity and risk as written in a table, and what the test samples said."""
        seen = ("-", "-") if self.tested is None else (f"{self.tested.risk:.3g}", f"{self.tested.p_value:.2g}")
        return f"{self.cost:.3f}", f"{100 * self.activity:.1f} %", f"{self.risk:.2g}", *seen

    def make(self) -> Any:  # noqa: ANN401  (a RoutedModule)
        """Return the module with this setting, with a plan and a certificate of its own."""
        assert self.maker is not None
        return self.maker.made(self)

    def __repr__(self) -> str:
        return f"<Setting: {self}>"

    def __str__(self) -> str:
        seen = "" if self.tested is None else f", test risk {self.tested.risk:.4g} (p = {self.tested.p_value:.3g})"
        return (
            f"{self.name}: cost {self.cost:.3f}, activity {100 * self.activity:.1f} %, risk about {self.risk:.4g}{seen}"
        )


class Settings(list[Setting]):
    """The settings of a module whose budget was shown, safest first; printed as a table.

    Example:
        >>> print(routed.settings)
        >>> faster = routed.settings[-1].make()
    """

    def __repr__(self) -> str:
        return f"<Settings: {len(self)} settings, safest first; print it for all of them>"

    def __str__(self) -> str:
        if not self:
            return "no setting was shown to keep a budget"
        names = ["", *(s.name for s in self)]
        rows = [
            [i, "" if s.name == before else s.name, *s.figures]
            for i, (s, before) in enumerate(zip(self, names, strict=False))
        ]
        heads = ["", "setting", "cost", "activity", "risk about", "test risk", "p"]
        return tabulate(rows, heads, "simple", disable_numparse=True, maxcolwidths=[None, NAME_WIDTH, *[None] * 5])


def pareto(settings: Sequence[Setting], most_cost: float) -> list[Setting]:
    """Return those that no other beats in both risk and cost, safest first; dearer ones than `most_cost` are left out.

    The walk ends where one fails: a step that saves less than `WORTH` of the one before would be a risk for nothing.
    """
    kept: list[Setting] = []
    for setting in sorted(settings, key=lambda s: (s.risk, s.cost)):
        if setting.cost < min(most_cost, WORTH * kept[-1].cost if kept else most_cost):
            kept.append(setting)
    return kept


def walk_all(
    paths: Sequence[Sequence[Setting]],
    test: Callable[[Setting], Setting],
    interruptible: Callable[[], AbstractContextManager[object]],
) -> list[Setting]:
    """Return the tested settings of several paths, each up to and with its first that fails."""
    return [setting for path in paths for setting in walk(path, test, interruptible())]


def walk(
    path: Sequence[Setting], test: Callable[[Setting], Setting], interruptible: AbstractContextManager[object]
) -> list[Setting]:
    """Return the tested settings of a path, up to and with the first that fails; what was tested before Ctrl-C is kept."""
    walked: list[Setting] = []
    with interruptible:
        for setting in fixed_sequence(path, test):
            walked.append(setting)
    return walked


def kept(walked: Sequence[Setting], most: float | None = None) -> list[Setting]:
    """Return the accepted settings in which no test sample deviates by more than `most`: any of them may be taken."""
    return [s for s in walked if s.accepted and s.within(most)]


def fastest(walked: Sequence[Setting], budget: Budget, most: float | None = None) -> Setting | str:
    """Return the accepted setting that is predicted to cost least, or why there is none; see `kept`."""
    if not kept(walked):
        return why_none(walked[0].tested if walked else None, budget)
    if not (found := kept(walked, most)):
        return f"in each setting that keeps the budget a test sample exceeds max_sample_deviation={most:g}"
    return min(found, key=lambda s: s.cost)
