"""Readable text of a graph: one node a line, each routed site fenced by comments.

    graph(x: f32[N, 64])
      stem         = stem(x)                              f32[N, 256]
    # site fc1..fc2   light LowRank(rank=8)   gate LearnedGate() < 0.042   full rows 31 % (calibration)
      fc1_fc2_rows = as_rows(stem, 256, 'fc1..fc2')       f32[N, 256]
      fc1_fc2_gate = routed.fc1_fc2.gate(fc1_fc2_rows)    f32[N]
      ...
    # end fc1..fc2

FX's own printout carries user counts and module paths and changes between versions; this text is ours and is tested.
Shapes come from `annotate_shapes`; N is the number of samples in the batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from dendrofx.errors import InputError
from dendrofx.values.meta import HEADERS, NOTE, SHAPE

_DTYPES = {"float32": "f32", "float64": "f64", "float16": "f16", "bfloat16": "bf16", "int64": "i64", "int32": "i32"}


def graph_text(gm: fx.GraphModule) -> str:
    """Write the graph in a form a person can read; see the module's docstring.

    Args:
        gm: what `transform` returned.

    Raises:
        InputError: it has no graph.

    Example:
        >>> print(dendrofx.graph_text(routed))
    """
    if not isinstance(gm, fx.GraphModule):
        raise InputError(
            f"a {type(gm).__name__} has no graph to print: pass what dendrofx.transform returned (decide=False routes every site)"
        )
    headers: dict[str, str] = gm.meta.get(HEADERS, {})
    nodes = [n for n in gm.graph.nodes if n.op not in ("placeholder", "output")]
    width = max((len(n.name) for n in nodes), default=0)
    calls = {n: f"  {n.name:{width}s} = {_call(n)}" for n in nodes}
    column = max((len(calls[n]) for n in nodes if SHAPE in n.meta), default=0)
    lines: list[str] = []
    site: str | None = None
    for node in nodes:
        note = node.meta.get(NOTE)
        here = note.site if note is not None else None
        if site is not None and here != site:
            lines.append(f"# end {site}")
        if here is not None and here != site:
            lines.append(f"# site {here}   {headers[here]}" if here in headers else f"# site {here}")
        site = here
        shape = node.meta.get(SHAPE)
        lines.append(f"{calls[node]:{column}s}   {shape}" if shape else calls[node])
    if site is not None:
        lines.append(f"# end {site}")
    inputs = ", ".join(_typed(n) for n in gm.graph.nodes if n.op == "placeholder")
    result = next(n for n in reversed(gm.graph.nodes) if n.op == "output").args[0]
    return "\n".join([f"graph({inputs})", *lines, f"  return {result}"])


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its kind."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _typed(node: fx.Node) -> str:
    shape = node.meta.get(SHAPE)
    return f"{node.name}: {shape}" if shape else node.name


def _call(node: fx.Node) -> str:
    if node.op == "get_attr":
        return str(node.target)
    kwargs = {k: v for k, v in node.kwargs.items() if (k, v) != ("inplace", False)}
    args = [_value(a) for a in node.args] + [f"{k}={_value(v)}" for k, v in kwargs.items()]
    if node.op == "call_method":
        return f"{args[0]}.{node.target}({', '.join(args[1:])})"
    name = str(node.target) if node.op == "call_module" else getattr(node.target, "__name__", str(node.target))
    return f"{name}({', '.join(args)})"


def _value(value: Any) -> str:  # noqa: ANN401  (whatever FX allows as an argument)
    return str(value) if isinstance(value, fx.Node) else repr(value)


class _Shapes(fx.Interpreter):
    def __init__(self, gm: fx.GraphModule, samples: int) -> None:
        super().__init__(gm)
        self.samples = samples

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401
        value = super().run_node(n)
        if isinstance(value, Tensor):
            n.meta[SHAPE] = describe(value, self.samples)
        return value


@torch.no_grad()
def annotate_shapes(gm: fx.GraphModule, args: tuple[Any, ...], samples: int) -> None:
    """Run the graph once and note each tensor's shape on its node.

    Args:
        gm: annotated in place.
        args: inputs by position.
        samples: leading size that is printed as N.
    """
    _Shapes(gm, samples).run(*args)


def describe(value: Tensor, samples: int) -> str:
    """Return `f32[N, 256]`."""
    name = str(value.dtype).removeprefix("torch.")
    dims = [str(s) for s in value.shape]
    if dims and samples > 1 and value.shape[0] > 0 and value.shape[0] % samples == 0:
        times = value.shape[0] // samples
        dims[0] = "N" if times == 1 else f"N*{times}"
    return f"{_DTYPES.get(name, name)}[{', '.join(dims)}]"
