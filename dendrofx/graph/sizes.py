"""Sizes of a graph's values: which of them vary with the input, and how.

    f32[N, T, 64]      N samples, T tokens
    f32[1, L, 64]      L live rows, where dead rows are dropped
    f32[R, 64]         R distinct rows, where rows repeat; R1, R2 of several inputs
    f32[512]           a size of the model, whatever it is a multiple of

An example alone says nothing about that, so the graph is run at other numbers of samples and tokens too, and a size is N or T
where it moves with them in every run. What cannot be run at other sizes, or is one number in all of them, stays a number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from dendrofx.machine.cores import on_free_cores
from dendrofx.runtime.live import LiveRows
from dendrofx.runtime.repeats import row_runs, sample_runs
from dendrofx.values.meta import CAPTURE, SEEN, SHAPE, SHAPES, SIZE

FEW = 2  # samples of the runs at other sizes
_DTYPES = {"float32": "f32", "float64": "f64", "float16": "f16", "bfloat16": "bf16", "int64": "i64", "int32": "i32"}
Args = tuple[Any, ...]
Found = tuple[str, tuple[int, ...]]  # of a tensor its type and sizes, of a number "" and itself
Symbols = Mapping[str, tuple[int, ...]]  # what a size is called -> its value in each run


class _Sizes(fx.Interpreter):
    """Runs a graph and keeps what its values measure."""

    def __init__(self, gm: fx.GraphModule) -> None:
        super().__init__(gm)
        self.found: dict[fx.Node, Found] = {}
        self.counts: dict[str, int] = {}  # of rows that are left over, by what they are called
        self.names: dict[fx.Node, str] = {}

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.found[n] = str(value.dtype).removeprefix("torch."), tuple(value.shape)
        elif type(value) is int:
            self.found[n] = "", (value,)
        elif isinstance(value, LiveRows):
            self.counts["L"] = int(value.index.size(0))
        elif n.target in (row_runs, sample_runs):
            self.counts[self.names.setdefault(n, f"R{len(self.names) + 1}")] = int(value.distinct)
        return value


@on_free_cores()
@torch.no_grad()
def annotate_shapes(gm: fx.GraphModule, args: Args, samples: int) -> None:
    """Run the graph, at other sizes too, and note each tensor's shape on its node, and each number that is a size of the input.

    Args:
        gm: annotated in place.
        args: inputs by position.
        samples: leading size that is printed as N.

    Example:
        >>> annotate_shapes(gm, (torch.randn(3, 64),), samples=3)
        >>> print(graph_text(gm))
    """
    first = _Sizes(gm)
    first.run(*args)
    tokens = _token_axes(gm, [n for n in gm.graph.nodes if n.op == "placeholder"], args)
    longest = args[tokens[0][0]].size(tokens[0][1]) if tokens else 0
    found = _Runs(gm, [first], {"N": [samples], "T": [longest]})
    fewer = FEW if samples != FEW else FEW + 1
    few = _resized(args, [(i, 0) for i in _sample_axes(args, samples)], fewer)
    # of fewer tokens few samples are run too, unless the graph holds for the example's number alone
    base, changed = (args, {}) if few is None or not found.added(few, {"N": fewer}) else (few, {"N": fewer})
    for count in [t for t in (longest - 1, longest // 2) if 0 < t < longest]:
        if (shorter := _resized(base, tokens, count)) is not None:
            found.added(shorter, {**changed, "T": count})
    symbols = {name: tuple(values) for name, values in found.sizes.items() if len(set(values)) > 1}
    for name in first.counts:
        symbols[name if len(first.names) != 1 else name.rstrip("1")] = tuple(run.counts[name] for run in found.runs)
    for node in first.found:
        _note(node, [run.found.get(node, first.found[node]) for run in found.runs], symbols)


@dataclass(frozen=True)
class _Runs:
    """Runs of a graph at several sizes, and what these are in each."""

    gm: fx.GraphModule
    runs: list[_Sizes]
    sizes: Mapping[str, list[int]]

    def added(self, args: Args, changed: Mapping[str, int]) -> bool:
        """Run inputs of other sizes, and say whether the graph takes them; those it does not take are printed as they are."""
        run = _Sizes(self.gm)
        try:
            run.run(*args)
        except Exception:
            return False
        self.runs.append(run)
        for name, values in self.sizes.items():
            values.append(changed.get(name, values[0]))
        return True


def _note(node: fx.Node, found: Sequence[Found], symbols: Symbols) -> None:
    kind, sizes = found[0]
    if any(len(other) != len(sizes) for _, other in found):
        found = found[:1]
    words = [size_in(symbols, [f[1][axis] for f in found]) for axis in range(len(sizes))]
    if kind:
        if node.op == "placeholder":
            node.meta[SEEN] = sizes
        node.meta[SHAPE] = f"{_DTYPES.get(kind, kind)}[{', '.join(words)}]"
    elif not words[0].lstrip("-").isdigit():
        node.meta[SIZE] = words[0]


def size_in(symbols: Symbols, values: Sequence[int]) -> str:
    """Write a size in terms of the symbols that it moves with.

    Args:
        symbols: values of each in every run.
        values: of the size in every run.

    Returns:
        A number where it is the same in all runs; `N`, `T*3`, `N*T`, `T+1`; `?` where it follows from none of them.
    """
    if len(set(values)) == 1:
        return str(values[0])
    for name, unit in _products(symbols):
        if 0 not in unit and all(v * unit[0] == values[0] * u for v, u in zip(values, unit, strict=False)):
            times = values[0] // unit[0]
            if times * unit[0] == values[0] and times:
                return name if times == 1 else f"{name}*{times}"
    for name, unit in symbols.items():
        if len({v - u for v, u in zip(values, unit, strict=False)}) == 1:
            return f"{name}{values[0] - unit[0]:+d}"
    return "?"


def _products(symbols: Symbols) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from symbols.items()
    if {"N", "T"} <= symbols.keys():
        yield "N*T", tuple(n * t for n, t in zip(symbols["N"], symbols["T"], strict=True))
        yield "N*T*T", tuple(n * t * t for n, t in zip(symbols["N"], symbols["T"], strict=True))


def _resized(args: Args, axes: Sequence[tuple[int, int]], count: int) -> Args | None:
    """Return the inputs with another size of some axes: the first ones, or the first again; None where there are no such axes."""
    made = list(args)
    for place, axis in axes:
        index = torch.arange(count).remainder(made[place].size(axis))
        made[place] = made[place].index_select(axis, index)
    return tuple(made) if axes else None


def _sample_axes(args: Args, samples: int) -> list[int]:
    """Return which inputs carry samples."""
    return [i for i, a in enumerate(args) if isinstance(a, Tensor) and a.dim() > 0 and 0 < samples == a.size(0)]


def _token_axes(gm: fx.GraphModule, inputs: Sequence[fx.Node], args: Args) -> list[tuple[int, int]]:
    """Return the axes that count tokens, as (input, axis): by their symbol where export left one, else the second ones."""
    fixed = " ".join(getattr(gm.meta.get(CAPTURE), "guards", ()))
    shaped = {
        i: n.meta[SHAPES][0] for i, n in enumerate(inputs) if isinstance(n.meta.get(SHAPES), list) and n.meta[SHAPES]
    }
    if shaped:
        symbolic = [
            (i, axis) for i, s in shaped.items() for axis, size in enumerate(s) if axis and isinstance(size, str)
        ]
        found = [(i, axis) for i, axis in symbolic if args[i].size(axis) == args[symbolic[0][0]].size(symbolic[0][1])]
    else:
        second = [(i, 1) for i, a in enumerate(args) if isinstance(a, Tensor) and _has_tokens(a)]
        size = args[second[0][0]].size(1) if second else 0
        found = [(i, 1) for i, a in enumerate(args) if isinstance(a, Tensor) and a.dim() > 1 and a.size(1) == size]
    return [] if any(f"{inputs[i].target}.size({axis}) == " in fixed for i, axis in found) else found


def _has_tokens(value: Tensor) -> bool:
    """Return whether the second axis of an input may count tokens: of a float of two axes it counts features."""
    return value.dim() > 2 or (value.dim() == 2 and not value.is_floating_point())
