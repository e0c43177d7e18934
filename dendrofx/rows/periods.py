"""Periods: on which inputs each value's rows depend, so that it repeats where these do.

The inputs of a ranker are copied in different runs: a user's features for each of their candidates, a session's for fewer. What
repeats is judged by *sources*: an input that carries samples, or columns of one, `X[:, 3:7]`, where the model reads it by columns
alone. Sources that repeat together are one *group*. The period of a value is the set of groups that it depends on; its rows repeat
where those of all these groups do, and nothing else reaches them: no other input, and no node that is not proved to treat every
row on its own (`samples.py`).

    user_ids        {user}
    tower           {user}
    item            -             its rows do not repeat
    cat             -             tower and item are joined
    positions       {}            every row is the same

What can never repeat has no period, `EVERY`. Weights have none either: they have no rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from dendrofx.graph.shapes import tensors
from dendrofx.rows.layout import SAMPLES
from dendrofx.rows.rules import is_getitem
from dendrofx.rows.samples import SampleAnalysis
from dendrofx.values.meta import DTYPE

aten = torch.ops.aten
Period = frozenset[str]
EVERY: Period | None = None  # of values that repeat in no row
_PICKS = (aten.slice, aten.select, aten.narrow, aten.index_select)


@dataclass(frozen=True)
class End:
    """A node that reads repeated rows and is not row-wise: there a region ends.

    Attributes:
        node: its name.
        reason: why it mixes rows.
        period: of what it reads.
    """

    node: str
    reason: str
    period: Period

    def __str__(self) -> str:
        return f"%{self.node}: {self.reason}"


def sources(gm: fx.GraphModule, analysis: SampleAnalysis) -> dict[str, tuple[fx.Node, ...]]:
    """Return what may repeat, by name: nodes that hold the same value, inputs or columns of them."""
    found: dict[str, tuple[fx.Node, ...]] = {}
    for node in gm.graph.nodes:
        if node.op != "placeholder" or not is_source(node, analysis):
            continue
        users = [u for u in node.users if tensors(u)]
        picks = [n for u in users for n in _picked(u, node, analysis)]
        if users and len({n for n in picks if not is_getitem(n)} | {n.args[0] for n in picks if is_getitem(n)}) == len(
            users
        ):
            for pick in picks:
                name = f"{node.target}{_columns(pick)}"
                found[name] = (*found.get(name, ()), pick)
        else:
            found[str(node.target)] = (node,)
    return found


def is_source(node: fx.Node, analysis: SampleAnalysis) -> bool:
    """Tell whether an input has one sample per row, of a type whose rows can be compared."""
    layout, dtype = analysis.layout(node), node.meta.get(DTYPE)
    complex_ = isinstance(dtype, torch.dtype) and dtype.is_complex
    return layout.startswith(SAMPLES) and analysis.has_rows(layout) and not complex_


def _picked(user: fx.Node, x: fx.Node, analysis: SampleAnalysis) -> list[fx.Node]:
    """Return the columns of an input that a node picks between fixed places; none where it does anything else."""
    if user.op != "call_function" or not analysis.row_wise(user) or user.all_input_nodes != [x]:
        return []
    if user.target in _PICKS and _dim(user) > 0:
        return [user]
    split = user.target in (aten.split, aten.split_with_sizes, aten.chunk, aten.unbind)
    return [n for n in user.users if is_getitem(n)] if split else []


def _dim(pick: fx.Node) -> int:
    dim = pick.args[1] if len(pick.args) > 1 else pick.kwargs.get("dim", 0)
    return dim if isinstance(dim, int) else 0


def _columns(pick: fx.Node) -> str:
    """Write what is picked as Python does: `[:, 3:7]`."""
    if is_getitem(pick):
        split = pick.args[0]
        assert isinstance(split, fx.Node)
        return f".{getattr(split.target, '__name__', split.target)}({_words(split.args[1:])})[{pick.args[1]}]"
    before, args = ":, " * _dim(pick), pick.args[2:]
    if pick.target is aten.select:
        return f"[{before}{args[0]}]"
    if pick.target is aten.slice:
        start, end = (args[i] if len(args) > i else None for i in (0, 1))
        step = f":{args[2]}" if len(args) > 2 and args[2] != 1 else ""
        open_end = end is None or (isinstance(end, int) and end >= 2**62)
        return f"[{before}{start or ''}:{'' if open_end else end}{step}]"
    return f".{getattr(pick.target, '__name__', pick.target)}({_words(pick.args[1:])})"


def _words(args: Iterable[Any]) -> str:
    return ", ".join(str(a) for a in args)


class Periods:
    """The period of every value; see the module's docstring.

    Args:
        gm: a module captured with symbolic shapes.
        groups: names of sources that repeat together, by the name of their group; other inputs repeat in no row.
        analysis: of the same module.

    Attributes:
        of: by node with rows; `EVERY` where they do not repeat.
        ends: where regions end, in graph order.

    Example:
        >>> periods = Periods(gm, {"user": ("user_ids", "user_dense")}, SampleAnalysis(gm))
        >>> periods.of[tower]
        frozenset({'user'})
    """

    def __init__(self, gm: fx.GraphModule, groups: Mapping[str, Sequence[str]], analysis: SampleAnalysis) -> None:
        self.gm, self.analysis = gm, analysis
        known = sources(gm, analysis)
        self.sources = {node: group for group, names in groups.items() for name in names for node in known[name]}
        self.of: dict[fx.Node, Period | None] = {}
        self.ends: list[End] = []
        for node in gm.graph.nodes:
            if tensors(node) and SAMPLES in analysis.layout(node):
                self.of[node] = self.period(node)
            self.end(node)

    def period(self, node: fx.Node) -> Period | None:
        """Return the period of a value whose inputs have theirs."""
        if node in self.sources:
            return frozenset({self.sources[node]})
        if node.op == "placeholder" or not self.analysis.row_wise(node) or node in self.analysis.places:
            return EVERY
        return joined(self.of[n] for n in node.all_input_nodes if n in self.of)

    def end(self, node: fx.Node) -> None:
        """Note a node that reads repeated rows and mixes them."""
        if node.op == "output" or self.analysis.row_wise(node):
            return
        read = [p for n in node.all_input_nodes if (p := self.of.get(n))]
        if read and (reason := self.analysis.notes[node].reason):
            self.ends.append(End(node.name, reason, frozenset().union(*read)))

    def firsts(self, group: str) -> list[fx.Node]:
        """Return the sources of a group, of columns that the graph picks twice the first."""
        known = sources(self.gm, self.analysis).values()
        return [nodes[0] for nodes in known if self.sources.get(nodes[0]) == group]

    def __getitem__(self, node: fx.Node) -> Period | None:
        return self.of.get(node, EVERY)


def joined(periods: Iterable[Period | None]) -> Period | None:
    """Return the period of what is computed from values of these."""
    found: Period = frozenset()
    for period in periods:
        if period is None:
            return EVERY
        found |= period
    return found


def rank(period: Period | None) -> tuple[bool, int, list[str]]:
    """Return what periods are sorted by: what depends on more, and repeats less, comes later, and what does not repeat last."""
    return period is None, len(period or ()), sorted(period or ())


def label(period: Iterable[str]) -> str:
    """Write a period: `user and context`."""
    return " and ".join(sorted(period))


__all__ = ["EVERY", "End", "Period", "Periods", "joined", "label", "rank", "sources"]
