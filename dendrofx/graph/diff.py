"""Two graphs as text, side by side: what a rewrite removed, added and changed.

    1 site routed, 3 calls removed, 3 calls added, 1 module changed
    -   fc1  = fc1(relu)
    -   fc2  = fc2(relu)
    + # site fc1..fc2   light Int8()   gate NoiseGate() < 0.05
    +   score = fc1..fc2.gate(relu)
        ... 12 lines alike
    ~   head = head(add)
    ~     Linear is now PackedLinear

Calls are compared as they are printed, without shapes and columns.
"""

from __future__ import annotations

import difflib
import re
import textwrap
from collections.abc import Iterator, Sequence

from torch import fx, nn

from dendrofx.errors import InputError
from dendrofx.graph.capture import capture
from dendrofx.graph.show import WIDTH, graph_lines

AROUND = 2  # lines alike that are shown beside a difference


def graph_diff(before: nn.Module, after: fx.GraphModule) -> str:
    """Return what differs between two modules' graphs, within 100 columns.

    Lines of `graph_text` after `-` were removed, those after `+` added; after `~` the call is the same, of a module of another
    class. Of lines alike a few are shown around a difference, and the others counted.

    Args:
        before: the original; a model that is no graph is captured, without inputs, which plain models alone allow.
        after: what `transform` returned.

    Raises:
        InputError: `after` has no graph.
        CaptureError: `before` cannot be captured without inputs.

    Example:
        >>> print(dendrofx.graph_diff(model, routed))
    """
    if not isinstance(after, fx.GraphModule):
        raise InputError(f"a {type(after).__name__} has no graph to compare: pass what dendrofx.transform returned")
    source = before if isinstance(before, fx.GraphModule) else capture(before)
    old, new = (graph_lines(gm, WIDTH - 2) for gm in (source, after))
    matcher = difflib.SequenceMatcher(None, [_bare(x) for x in old], [_bare(x) for x in new], autojunk=False)
    lines: list[str] = []
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind == "equal":
            lines += _marked(source, after, old[a:b], new[c:d])
        else:
            lines += [*(f"- {line}" for line in old[a:b]), *(f"+ {line}" for line in new[c:d])]
    if all(line.startswith("  ") for line in lines):
        return "the graphs are alike"
    return "\n".join([_summary(source, after, lines), *_shortened(lines)])


def _bare(line: str) -> str:
    """Return a line without its shape and its columns, which say nothing of what is computed."""
    return " ".join(re.sub(r"   +\w+\[[^\]]*\]$", "", re.sub(r": \w+\[[^\]]*\]", "", line)).split())


def _marked(before: fx.GraphModule, after: fx.GraphModule, old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    """Give lines that are alike, marked where the module that is called is of another class."""
    kinds = _classes(before), _classes(after)
    for a, b in zip(old, new, strict=True):
        name = re.match(r"\s*(\S+)\s+= ", a)
        was, now = (k.get(name[1]) if name else None for k in kinds)
        yield f"~ {b}" if was != now and was and now else f"  {b}"
        if was != now and was and now:
            yield from (f"~     {part}" for part in textwrap.wrap(f"{was} is now {now}", WIDTH - 6))


def _classes(gm: fx.GraphModule) -> dict[str, str]:
    """Return the class of the module that each node calls."""
    calls = [n for n in gm.graph.nodes if n.op == "call_module"]
    return {n.name: type(gm.get_submodule(str(n.target))).__name__ for n in calls}


def _summary(before: fx.GraphModule, after: fx.GraphModule, lines: Sequence[str]) -> str:
    """Say in figures what differs."""
    sites = [len(set(_sites(gm))) for gm in (before, after)]
    gone, new = (sum(" = " in x and x.startswith(mark) for x in lines) for mark in "-+")
    changed = sum(x.startswith("~ ") and " = " in x for x in lines)
    said = [
        (sites[1] - sites[0], "sites routed"),
        (gone, "calls removed"),
        (new, "calls added"),
        (changed, "modules changed"),
    ]
    return ", ".join(
        f"{count} {what if count != 1 else what.replace('s ', ' ', 1)}" for count, what in said if count > 0
    )


def _sites(gm: fx.GraphModule) -> Iterator[str]:
    for line in graph_lines(gm, WIDTH - 2):
        if line.lstrip().startswith("# site "):
            yield line


def _shortened(lines: Sequence[str]) -> Iterator[str]:
    """Give the lines, of those alike the ones near a difference."""
    different = [i for i, line in enumerate(lines) if not line.startswith("  ")]
    near = {j for i in different for j in range(i - AROUND, i + AROUND + 1)}
    skipped: list[str] = []
    for i, line in enumerate([*lines, ""]):
        if i not in near and line:
            skipped.append(line)
            continue
        yield from skipped if len(skipped) == 1 else [f"    ... {len(skipped)} lines alike"][: len(skipped)]
        skipped = []
        if line:
            yield line
