"""Readable text of a graph: one call a line, each routed site fenced by comments, layers that are alike once.

    graph(x: f32[N, 64])
      stem = stem(x)                                f32[N, 256]
    # site fc1..fc2   light LowRank(rank=8)   gate LearnedGate() < 0.042   full rows 31 % (calibration)
      score = fc1..fc2.gate(stem)                   f32[N]
      if score < tolerance:  # each row
        fc2 = fc1..fc2.light(stem)
      else:
        fc2 = fc1..fc2.full(stem)                   f32[N, 256]
    # end fc1..fc2

FX's own printout carries user counts and module paths and changes between versions; this text is ours and is tested.
Shapes come from `annotate_shapes`. Parameters have no line of their own, nor have sizes of the input.
"""

from __future__ import annotations

import itertools
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence

from torch import fx, nn

from dendrofx.errors import InputError
from dendrofx.graph.folding import Fold, Folder
from dendrofx.graph.sizes import annotate_shapes
from dendrofx.graph.spelling import CASCADE, OUTPUTS, SITE, Item, Line, Speller, items
from dendrofx.values.meta import HEADERS, SHAPE

__all__ = ["annotate_shapes", "first_line", "graph_lines", "graph_text"]

WIDTH = 100
LONGEST_NAME = 28  # that calls are aligned behind


def graph_text(gm: fx.GraphModule) -> str:
    """Write the graph in a form a person can read, within 100 columns; see the module's docstring.

    Sizes are N (samples), T (tokens), L (live rows) and R (distinct rows) where they vary with the input. Of layers that are alike
    the first is printed, under `# 6 x: encoder.layer.0 to encoder.layer.5`; `y@6` is what `y` is in the sixth.

    Args:
        gm: what `transform` returned.

    Raises:
        InputError: it has no graph.

    Example:
        >>> print(dendrofx.graph_text(routed))
    """
    if not isinstance(gm, fx.GraphModule):
        raise InputError(f"a {type(gm).__name__} has no graph to print: pass what dendrofx.transform returned")
    return "\n".join(graph_lines(gm, WIDTH))


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its kind."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def last_line(error: BaseException) -> str:
    """Return the last line of an error's message, which of TorchScript's has the reason, without what kind it was of."""
    return str(error).strip().splitlines()[-1].removeprefix("builtins.").removeprefix("RuntimeError: ")


def graph_lines(gm: fx.GraphModule, width: int) -> list[str]:
    """Return the lines of `graph_text`, of another width."""
    found = list(items(gm.graph))
    headers: dict[str, str] = gm.meta.get(HEADERS, {})
    names: dict[fx.Node, str] = {i.node: OUTPUTS for i in found if _is_cascade(i)}
    body: list[Line | str] = []
    for fold in Folder(gm, found, headers).folds():
        body += _section(found, fold, names, headers, width)
    inputs = ", ".join(_typed(n) for n in gm.graph.nodes if n.op == "placeholder")
    speller = Speller(names)
    result = speller.value(next(n for n in reversed(gm.graph.nodes) if n.op == "output").args[0])
    inside = [line for item in found if _is_cascade(item) for line in _inside(gm, item, width)]
    return [
        *_wrapped(f"graph({inputs})", width),
        *_unfenced(_aligned(body, width), width),
        *_wrapped(f"  return {result}", width),
        *inside,
    ]


def _is_cascade(item: Item) -> bool:
    return len(item.nodes) > 1 and not item.parts.keys() >= SITE and item.parts.keys() >= CASCADE


def _inside(gm: fx.GraphModule, item: Item, width: int) -> Iterator[str]:
    """Give the graphs of a cascade's light and full model."""
    parts = item.parts
    for part in ("light", "full"):
        module: nn.Module = gm.get_submodule(str(parts[part].target))
        inner = module if isinstance(module, fx.GraphModule) else getattr(module, "full", None)
        if isinstance(inner, fx.GraphModule):
            yield f"# {item.site}.{part}"
            yield from (f"  {line}" for line in graph_lines(inner, width - 2))


def _section(
    found: Sequence[Item], fold: Fold, names: dict[fx.Node, str], headers: Mapping[str, str], width: int
) -> list[Line | str]:
    """Return a fold's lines; what is printed of later items calls its nodes by `names`, which are added to."""
    own = found[fold.start : fold.start + fold.length]
    if fold.count == 1:
        return _fenced(own, Speller(names), headers, width)
    first, last = (
        _prefix(found[at : at + fold.length]) for at in (fold.start, fold.start + fold.length * (fold.count - 1))
    )
    snake = re.sub(r"\W", "_", first).lower()
    for item in own:
        names[item.node] = item.node.name.removeprefix(snake)
    for j in range(1, fold.count):
        for i, item in enumerate(own):
            names[found[fold.start + j * fold.length + i].node] = f"{names[item.node]}@{j + 1}"
    head = f"# {fold.count} x: {first.rstrip('.') or own[0].node.name} to {last.rstrip('.') or _last_name(found, fold)}"
    carried = [f"{names.get(a, a.name)} is {names[own[i].node]}" for a, i in fold.carried.items()]
    head += f"; after the first, {', '.join(carried)} of the one before" if carried else ""
    inside = _fenced(own, Speller(names, path=lambda path: path.removeprefix(first)), headers, width)
    return [*textwrap.wrap(head, width, subsequent_indent="#   "), *inside, f"# end {fold.count} x"]


def _last_name(found: Sequence[Item], fold: Fold) -> str:
    return found[fold.start + fold.length * (fold.count - 1)].node.name


def _prefix(own: Sequence[Item]) -> str:
    """Return the path that the modules, parameters and sites of some items have in common, up to a point."""
    paths = [i.site.partition("..")[0] for i in own if i.site]
    for node in [n for i in own if not i.site for n in (*i.nodes, *i.node.all_input_nodes)]:
        if node.op in ("call_module", "get_attr"):
            paths.append(str(node.target))
    ends = (min(paths), max(paths)) if paths else ("", "")
    alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(*ends, strict=False))
    common = "".join(a for a, _ in alike).rpartition(".")
    return f"{common[0]}." if re.search(r"\d", common[0]) else ""


def _fenced(own: Sequence[Item], speller: Speller, headers: Mapping[str, str], width: int) -> list[Line | str]:
    """Return items' lines, each site between two comments; neighbours of one site share them, see `_unfenced`."""
    lines: list[Line | str] = []
    for item in own:
        inside = speller.lines(item)
        if item.site:
            lines += [*_header(item.site, headers.get(item.site, ""), width), *inside, f"# end {item.site}"]
        else:
            lines += inside
    return lines


def _header(site: str, said: str, width: int) -> list[str]:
    """Return what is said of a site as comments, cut between its parts where it is too wide for one."""
    lines = [f"# site {site}"]
    for part in said.split("   ") if said else []:
        if len(lines[-1]) + 3 + len(part) <= width or len(part) > width:
            lines[-1] += f"   {part}"
        else:
            lines.append(f"#   {part}")
    return [cut for line in lines for cut in _cut(line, width)]


def _unfenced(lines: Sequence[str], width: int) -> list[str]:
    """Join fences of one site that meet."""
    kept: list[str] = []
    for line in lines:
        if kept and line.startswith("# site ") and kept[-1] == f"# end {line[7:].split('   ')[0]}":
            kept.pop()
        else:
            kept.append(line)
    return [cut for line in kept for cut in (_cut(line, width) if line.startswith("# end ") else [line])]


def _cut(comment: str, width: int) -> list[str]:
    return textwrap.wrap(comment, width, subsequent_indent="#   ", break_on_hyphens=False)


def _aligned(body: Sequence[Line | str], width: int) -> list[str]:
    """Write lines with their calls and their shapes in columns; what is too wide goes on below."""
    lines = [line for line in body if isinstance(line, Line)]
    name = max((len(x.left) for x in lines if not x.branch and len(x.left) <= LONGEST_NAME), default=0)
    shape = max((len(line.shape) for line in lines), default=0)
    room = width - (shape + 3 if shape else 0)
    texts = {i: _call(line, name) for i, line in enumerate(body) if isinstance(line, Line)}
    fitting = [len(t) for i, t in texts.items() if len(t) <= room and _shape_of(body[i])]
    column = max(fitting, default=0)
    found: list[str] = []
    for i, line in enumerate(body):
        if isinstance(line, str):
            found.append(line)
            continue
        *before, text = _wrapped(texts[i], room)
        found += [*before, f"{text:{column}s}   {line.shape}" if line.shape else text]
    return found


def _shape_of(line: Line | str) -> str:
    return line.shape if isinstance(line, Line) else ""


def _call(line: Line, name: int) -> str:
    indent = "  " + " " * line.indent
    return f"{indent}{line.left:{0 if line.branch else name}s} = {line.right}" if line.left else f"{indent}{line.right}"


def _wrapped(text: str, width: int) -> list[str]:
    indent = " " * (len(text) - len(text.lstrip()))
    if len(text) <= width:
        return [text]
    return textwrap.wrap(text, width, subsequent_indent=indent + "    ", break_on_hyphens=False)


def _typed(node: fx.Node) -> str:
    shape = node.meta.get(SHAPE)
    return f"{node.name}: {shape}" if shape else node.name
