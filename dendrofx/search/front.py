"""The front: settings from safest to fastest, fixed on one set of samples and tested on another.

Every setting that was searched has an estimated risk and a predicted cost. Those that another one beats in both are dropped; the
rest, in the order of their risk, are the path of `sequence.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from torch import Tensor

from dendrofx.guarantee.budget import Budget
from dendrofx.guarantee.sequence import Tested, walk_steps, why_none

if TYPE_CHECKING:
    from dendrofx.rewriting.module import RoutedModule


@dataclass(frozen=True)
class Setting:
    """One point of a front.

    Attributes:
        name: what it is: light forms and gate, in words.
        tolerances: by site.
        risk: estimated on the samples of the search.
        cost: predicted, over the original's.
        activity: share that takes the full branch, on the samples of the search.
        tested: what the test samples said; None where the walk stopped before it.
        test: its losses on the test samples, f64[n] or f64[n, outputs], and the share of them that took the light branch.
        make: the module with this setting.
        source: what was searched: a light model with its gate, or a set of branches.
    """

    name: str
    tolerances: dict[str, float]
    risk: float
    cost: float
    activity: float
    test: Callable[[], tuple[Tensor, float]] = field(repr=False)
    make: Callable[[], RoutedModule] = field(repr=False)
    source: object = field(repr=False)
    tested: Tested | None = None
    easy_share: float = 1.0

    @property
    def accepted(self) -> bool:
        """Whether the test samples show the budget to hold."""
        return self.tested is not None and self.tested.accepted

    def __str__(self) -> str:
        seen = "" if self.tested is None else f", test risk {self.tested.risk:.4g} (p = {self.tested.p_value:.3g})"
        return (
            f"{self.name}: cost {self.cost:.3f}, activity {100 * self.activity:.1f} %, risk about {self.risk:.4g}{seen}"
        )


def pareto(settings: Sequence[Setting], most_cost: float) -> list[Setting]:
    """Those that no other beats in both risk and cost, safest first; dearer ones than `most_cost` are left out."""
    kept: list[Setting] = []
    for setting in sorted(settings, key=lambda s: (s.risk, s.cost)):
        if setting.cost < min(most_cost, kept[-1].cost if kept else most_cost):
            kept.append(setting)
    return kept


def walk_front(path: Sequence[Setting], budget: Budget) -> Iterator[Setting]:
    """The tested settings of a path, in order, up to and with the first that fails; the caller may stop at any."""
    shares: list[float] = []

    def losses() -> Iterator[Tensor]:
        for setting in path:
            found, share = setting.test()
            shares.append(share)
            yield found

    for setting, tested in zip(path, walk_steps(losses(), budget), strict=False):
        yield replace(setting, tested=tested, easy_share=shares[-1])


def walked_front(
    path: Sequence[Setting], budget: Budget, interruptible: Callable[[], AbstractContextManager[object]]
) -> list[Setting]:
    """The same as a list; what was tested before Ctrl-C is kept."""
    front: list[Setting] = []
    with interruptible():
        for setting in walk_front(path, budget):
            front.append(setting)
    return front


def fastest(front: Sequence[Setting], budget: Budget) -> Setting | str:
    """The accepted setting that costs least, or why there is none."""
    accepted = [s for s in front if s.accepted]
    if not accepted:
        return why_none([s.tested for s in front if s.tested is not None], budget)
    return min(accepted, key=lambda s: s.cost)
