"""Repeated rows: a row that equals the one before it takes that row's result.

    transform(model, repeated_rows=True, ...)       of every input that carries samples, each judged on its own
    transform(model, repeated_rows="user", ...)     of this one, or of several

A ranker scores many candidates for one user, whose features are copied for each. The captured graph is analysed
(`rows/periods.py`): what depends on repeated inputs alone is rewritten to run on distinct rows (pass DropRepeatedRows), and the
result is compared with the original on inputs whose rows repeat in every way (`rows/repeat_check.py`) before it is trusted.

Nothing is approximated and nothing has to be fitted: which rows repeat is found in every call. The example decides one thing, which
inputs are compared together: those that repeat alike in it are one group, so that they share their runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, fx

from dendrofx.errors import InputError
from dendrofx.graph.shapes import shape, tensors
from dendrofx.passes import DropRepeatedRows, JoinBags, run_passes
from dendrofx.plan.entries import RepeatedRegion
from dendrofx.rewriting.fresh import fresh
from dendrofx.rows.layout import SAMPLES
from dendrofx.rows.periods import Periods, sources
from dendrofx.rows.regions import is_sample_product
from dendrofx.rows.repeat_check import check_repeats, source_values
from dendrofx.rows.samples import SampleAnalysis
from dendrofx.runtime.pairs import joined_pairs
from dendrofx.runtime.repeats import equals_before, row_runs, sample_runs
from dendrofx.runtime.split_linear import split_linear
from dendrofx.values.inputs import Inputs
from dendrofx.values.meta import RUNS, SPLIT, Columns

Groups = Mapping[str, Sequence[str]]
MOST_GROUPS = 8  # that are compared each on its own where the example does not say which repeat together
MOST_ENDS = 3  # that are said


@dataclass(frozen=True)
class RepeatedRows:
    """What was rewritten for distinct rows.

    Attributes:
        groups: names of inputs, or columns of them, that repeat together, by the name of their group.
        regions: what runs on distinct rows of which of them.
        ends: nodes that mix rows which repeat, each with its reason.
        difference: largest difference of an output from the captured graph's, relative to its largest value.
    """

    groups: Groups
    regions: tuple[RepeatedRegion, ...]
    ends: tuple[str, ...]
    difference: float

    def describe(self) -> str:
        """Say what was rewritten in words."""
        shown = list(self.ends[:MOST_ENDS])
        shown += [f"{len(self.ends) - MOST_ENDS} more"] if len(self.ends) > MOST_ENDS else []
        ends = f"; rows mix at {', '.join(shown)}" if shown else ""
        return f"outputs equal to {self.difference:.1e}{ends}"

    def counted(self, gm: fx.GraphModule, batches: Iterable[Inputs]) -> tuple[RepeatedRegion, ...]:
        """Return the regions with the rows, and distinct rows, of batches."""
        total: dict[str, list[int]] = {}
        runs = runs_alone(gm)
        for batch in batches:
            for name, (rows, distinct) in zip(runs.meta[RUNS], batch.call(runs), strict=True):
                found = total.setdefault(name, [0, 0])
                total[name] = [found[0] + rows, found[1] + distinct]
        return tuple(replace(r, rows=total[r.inputs][0], distinct=total[r.inputs][1]) for r in self.regions)


def drop_repeated_rows(
    captured: fx.GraphModule, asked: Sequence[str], example: Inputs, groups: Groups | None = None
) -> tuple[fx.GraphModule, RepeatedRows] | str:
    """Make a new graph module that runs on distinct rows what depends on repeated rows alone.

    Args:
        captured: with symbolic shapes; left unchanged.
        asked: names of inputs that repeat; all that carry samples where it is empty.
        example: inputs as the graph takes them.
        groups: of a plan; by default those of the example.

    Returns:
        The module and what was rewritten, or why there is nothing to rewrite.

    Raises:
        InputError: no such input, one that has other rows, or rows of a named one are mixed: names the input and the node.
        PassError: the analysis was wrong, which it must not be.
    """
    original, captured = captured, fresh(captured)
    run_passes(captured, [JoinBags()])
    analysis = SampleAnalysis(captured)
    known = sources(captured, analysis)
    rows = _rows(known, dict(example.kwargs))
    most = max(rows.values(), key=lambda count: (list(rows.values()).count(count), count), default=0)
    known = {name: nodes for name, nodes in known.items() if rows[name] == most}
    names = [name for one in asked for name in _named(one, captured, known, analysis, example)] or list(known)
    if not names:
        return "no input carries samples on its first axis"
    if groups is None:
        nodes = [known[n][0] for n in names]
        groups = grouped(source_values(captured, nodes, example), names, [shape(n)[0] for n in nodes])
    periods = Periods(captured, groups, analysis)
    if asked and periods.ends:
        end = periods.ends[0]
        raise InputError(
            f"repeated_rows: rows of {_given(groups, end.period)} are mixed at {end}. Repeated rows save nothing from there on:"
            " leave it out, or pass repeated_rows=True, which leaves out what is behind such nodes"
        )
    gm = fresh(captured)
    changed = run_passes(gm, [DropRepeatedRows({name: tuple(own) for name, own in groups.items()})]).changed
    if not changed:
        return "no product depends on repeated rows alone"
    gm = fresh(gm)
    far = check_repeats(original, gm, periods.sources, replace(example, shared=analysis.shared))
    return gm, RepeatedRows(groups, _regions(gm, example), tuple(dict.fromkeys(map(str, periods.ends))), far)


def grouped(values: Sequence[Tensor], names: Sequence[str], counts: Sequence[int | str]) -> dict[str, tuple[str, ...]]:
    """Return which sources are compared together.

    Those in which the same rows repeat are one group. Of those in which none does, columns are left out where another source does
    repeat, and the others are groups of their own, or one where there are many.

    Args:
        values: of the sources in the example.
        names: of the sources.
        counts: the symbols that count their rows; sources of different ones are never one group, for a call may have other numbers.
    """
    alike: dict[tuple[int | str, tuple[bool, ...]], list[str]] = {}
    for name, value, count in zip(names, values, counts, strict=True):
        same = tuple(equals_before(value).tolist()) if value.size(0) > 1 else ()
        alike.setdefault((count, same), []).append(name)
    groups = [own for (_, same), own in alike.items() if any(same)]
    some_repeat = bool(groups)
    for own in [own for (_, same), own in alike.items() if not any(same)]:
        alone = [n for n in own if "[" not in n] if some_repeat else own
        groups += [[name] for name in alone] if len(alone) <= MOST_GROUPS else [alone]
    called: dict[str, tuple[str, ...]] = {}
    for own in groups:
        name = _group_name(own)
        called[name if name not in called else f"{name} from {own[0]}"] = tuple(own)
    return called


def _group_name(names: Sequence[str]) -> str:
    """Return what several sources are called: `user`, `3 columns of x`, `user with 2 more`."""
    if len(names) == 1:
        return names[0]
    inputs = {name.partition("[")[0] for name in names}
    columns = all("[" in name for name in names) and len(inputs) == 1
    return f"{len(names)} columns of {inputs.pop()}" if columns else f"{names[0]} with {len(names) - 1} more"


def _named(
    name: str, captured: fx.GraphModule, known: Mapping[str, object], analysis: SampleAnalysis, example: Inputs
) -> list[str]:
    """Return the sources that a caller means by a name: an input, which may be read by columns, or columns themselves."""
    given = {str(n.target): n for n in captured.graph.nodes if n.op == "placeholder"}
    found = [
        k for k in known if k == name or (name in given and k.startswith((f"{name}[", f"{name}.")) and k not in given)
    ]
    if found:
        return found
    if name not in given:
        columns = [k for k in known if k not in given]
        more = f", and columns {', '.join(columns)}" if columns else ""
        raise InputError(
            f"repeated_rows: {name!r} is no input of the model that carries rows: it has {', '.join(given)}{more}"
        )
    sizes, layout = list(dict(example.kwargs)[name].shape), analysis.layout(given[name])
    reason = "which the model does not read row by row along its first axis"
    if layout.startswith(SAMPLES) and analysis.has_rows(layout):
        reason = f"the others have {max(len(dict(example.kwargs)[k.partition('[')[0]]) for k in known)} rows"
    raise InputError(
        f"repeated_rows: '{name}' is shaped {sizes}, {reason}: name inputs with one row per sample on axis 0"
    )


def _rows(known: Mapping[str, Sequence[fx.Node]], given: Mapping[str, Tensor]) -> dict[str, int]:
    """Return how many rows each source has in the example."""
    inputs = {name: nodes[0] for name, nodes in known.items()}
    while picks := {name: n.all_input_nodes[0] for name, n in inputs.items() if n.op != "placeholder"}:
        inputs.update(picks)
    return {name: len(given[str(node.target)]) for name, node in inputs.items()}


def _given(groups: Groups, period: Iterable[str]) -> str:
    return " and ".join(f"'{name}'" for group in sorted(period) for name in groups[group])


def _regions(gm: fx.GraphModule, example: Inputs) -> tuple[RepeatedRegion, ...]:
    """Return what runs on distinct rows, by period, in graph order; columns that the graph does not fix are those of an example."""
    found: dict[str, RepeatedRegion] = {
        n.meta[RUNS]: RepeatedRegion(n.meta[RUNS]) for n in gm.graph.nodes if n.target is row_runs
    }
    given = dict(example.kwargs)
    inputs = [n for n in gm.graph.nodes if n.op == "placeholder" and tensors(n)]
    sizes = {size: seen for n in inputs for size, seen in zip(shape(n), given[str(n.target)].shape, strict=True)}
    for node in gm.graph.nodes:
        if RUNS in node.meta and is_sample_product(node, gm):
            region = found[node.meta[RUNS]]
            found[region.inputs] = replace(region, products=region.products + 1)
        if node.target in (split_linear, joined_pairs):
            split: Columns = node.meta[SPLIT]
            for period, text in split.repeated(_seen(node, len(split.groups), sizes)):
                found[period] = replace(found[period], split=[*found[period].split, text])
    return tuple(found.values())


def _seen(split: fx.Node, groups: int, sizes: Mapping[int | str, int]) -> list[int | None]:
    """Return how many columns each group of a split Linear has in an example of some sizes; None where they do not tell."""
    found: list[list[int | None]] = [[] for _ in range(groups)]
    parts, own = split.args[:2]
    for part, group in zip(parts, own, strict=False):  # type: ignore[arg-type]  # blocks of pairs are no parts
        size = shape(part)[-1] if tensors(part) else None
        found[group].append(size if isinstance(size, int) else sizes.get(size or ""))
    return [None if None in widths else sum(w or 0 for w in widths) for widths in found]


def runs_alone(gm: fx.GraphModule) -> fx.GraphModule:
    """Make a module that returns rows and distinct rows of every period; `meta[RUNS]` names them."""
    made = fresh(gm)
    runs = [n for n in made.graph.nodes if n.target in (row_runs, sample_runs)]
    output = next(n for n in made.graph.nodes if n.op == "output")
    with made.graph.inserting_before(output):
        pairs = [
            (made.graph.call_function(getattr, (n, "rows")), made.graph.call_function(getattr, (n, "distinct")))
            for n in runs
        ]
    output.args = (pairs,)
    made.graph.eliminate_dead_code()
    made.recompile()
    made.meta[RUNS] = [n.meta[RUNS] for n in runs]
    return made


__all__ = ["RepeatedRows", "drop_repeated_rows", "grouped"]
