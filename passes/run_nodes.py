"""The nodes that find runs of equal rows, each made once per graph and where it is first needed.

%user_same    = same_rows([%user])                  by group of inputs
%user_runs    = row_runs([%user_same])              by period
%user_to_rows = match_runs(%user_runs, %rows)       by two periods
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial

from torch import fx

from dendrofx.passes.places import graph_name
from dendrofx.passes.worlds import Worlds
from dendrofx.rows.periods import EVERY, Period, Periods, label
from dendrofx.runtime.repeats import all_rows, count_runs, match_runs, row_runs, same_rows
from dendrofx.values.meta import RUNS


class RunNodes(Worlds, ABC):
    """A walk over a graph with repeated rows.

    Args:
        gm: whose graph is written anew.
        periods: of its values.

    Attributes:
        made: nodes that are made once, by what they are.
    """

    def __init__(self, gm: fx.GraphModule, periods: Periods) -> None:
        super().__init__(gm)
        self.periods = periods
        self.made: dict[object, fx.Node] = {}

    @abstractmethod
    def at(self, node: fx.Node, world: Period | None) -> fx.Node:
        """Return an old node's value in a world."""

    def once(self, key: object, make: Callable[[], fx.Node]) -> fx.Node:
        """Return a node that is made once."""
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]

    def runs(self, period: Period) -> fx.Node:
        """Return the node of a period's runs."""
        return self.once(("runs", period), lambda: self.period_runs(period))

    def rows(self, period: Period) -> fx.Node:
        """Return the node of runs of one row each, as many as the inputs of a period have: others may have other rows."""
        args = (self.runs(period),)
        return self.once(("rows", period), lambda: self.call(all_rows, args, "rows"))

    def period_runs(self, period: Period) -> fx.Node:
        """Make the node of a period's runs."""
        same = []
        for group in sorted(period):
            values = [self.at(n, EVERY) for n in self.periods.firsts(group)]
            made = partial(self.call, same_rows, (values,), f"{graph_name(group)}_same")
            same.append(self.once(("same", group), made))
        node = self.call(row_runs, (same,), f"{graph_name(label(period))}_runs")
        node.meta[RUNS] = label(period)
        return node

    def moved(self, source: Period | None, target: Period | None, like: Period) -> fx.Node:
        """Return the node of the way from one period's runs to another's; both have as many rows as the inputs of `like`."""
        both = tuple(self.rows(like) if p is None else self.runs(p) for p in (source, target))
        names = [graph_name("rows" if p is None else label(p)) for p in (source, target)]
        return self.once(("moved", *both), lambda: self.call(match_runs, both, "_to_".join(names)))

    def count(self, period: Period) -> fx.Node:
        """Return the node that counts a period's runs."""
        args = (self.runs(period),)
        return self.once(("count", period), lambda: self.call(count_runs, args, "distinct_count"))
