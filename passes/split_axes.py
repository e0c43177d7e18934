"""Write values that have samples, tokens or heads folded into one axis with those apart, so that rows can be told.

    %q = reshape(%x, [tokens, batch * 4, 16])                      %q_apart = reshape(%x, [tokens, batch, 4, 16])
    %t = transpose(%q, 0, 1)                               ->      %t_apart = permute(%q_apart, [1, 2, 0, 3])
    %y = reshape(%t, [batch, 4, tokens, 16])                       (%t_apart itself)

    %f = reshape(%x, [batch * tokens, 64])
    %l = fc(%f)                                            ->      %l_apart = fc(%x)
    %y = reshape(%l, [batch, tokens, 32])                          (%l_apart itself)

1. Folded values begin and end at a reshape. Between may stand transpositions, Linears, and elementwise ops on one value and
   numbers. `nn.MultiheadAttention` folds heads into samples, and all rows into one axis for its last product.
2. Where anything else reads or makes a folded value, or writes it in place, all folded values that hang together with it stay
   as they are.
3. Nothing is computed otherwise: the same products of the same rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from dendrofx.graph.shapes import Shape, shape, tensors
from dendrofx.passes.base import Change, PassOnShapes, PassResult, calls
from dendrofx.rows.in_place import written_in_place
from dendrofx.rows.rules import ELEMENTWISE
from dendrofx.values.meta import SHAPES

aten = torch.ops.aten
# Of a value: what each of its axes is folded from, the outermost first.
Axes = tuple[tuple[int | str, ...], ...]


@dataclass(frozen=True)
class SplitAxes(PassOnShapes):
    """Split folded axes. Claim: none beyond equality; what cannot be split is left as it is."""

    def run(self, gm: fx.GraphModule) -> PassResult:
        """See `Pass.run`."""
        splitter = _Splitter(gm)
        changed = [splitter.rewrite(node) for node in list(gm.graph.nodes) if splitter.splits(node)]
        gm.graph.eliminate_dead_code()
        return PassResult(gm, tuple(changed))


class _Splitter:
    """`folded` values and their axes, those that are `left`, and the values that stand `apart` for the others."""

    def __init__(self, gm: fx.GraphModule) -> None:
        self.gm = gm
        self.folded: dict[fx.Node, Axes] = {}
        self.left: set[fx.Node] = set()
        self.apart: dict[fx.Node, fx.Node] = {}
        self.sizes: dict[str, fx.Node] = {}
        self.inputs = [n for n in gm.graph.nodes if n.op == "placeholder" and tensors(n)]
        self.written = written_in_place(gm)
        for node in gm.graph.nodes:
            axes = self.judge(node)
            if axes is None:
                self.left |= {node, *node.all_input_nodes}
            elif any(len(atoms) > 1 for atoms in axes):
                self.folded[node] = axes
        edges = [{a, b} for b in self.folded for a in b.all_input_nodes if a in self.folded]
        while spread := {n for edge in edges if edge & self.left for n in edge} - self.left:
            self.left |= spread

    def axes(self, node: fx.Node) -> Axes:
        return self.folded.get(node) or tuple((size,) for size in shape(node))

    def splits(self, node: fx.Node) -> bool:
        """Tell whether a node makes or reads a folded value that is not left."""
        return any(n in self.folded and n not in self.left for n in (node, *node.all_input_nodes))

    def judge(self, node: fx.Node) -> Axes | None:
        """Return what a node's axes are folded from; empty where nothing is folded, None where that cannot be told."""
        given = [n for n in node.all_input_nodes if tensors(n)]
        reads = any(n in self.folded for n in given)
        makes = any(len(_factors(size)) > 1 for size in (shape(node) if tensors(node) else ()))
        if not reads and not makes:
            return ()
        if not given or any(n in self.written and self.written[n] > n for n in (node, *given)):
            return None
        x = self.axes(given[0])
        if calls(node, aten.reshape):
            axes = _refold(x, shape(node))
            return axes if axes is not None and all(map(self.counts, _flat(axes))) else None
        if any(n in self.folded for n in given[1:]) or not reads or len(tensors(node)) != 1:
            return None
        if (order := _order(node, len(x))) is not None:
            return tuple(x[i] for i in order)
        if node.op == "call_module" or calls(node, aten.linear):
            return (*x[:-1], (shape(node)[-1],)) if len(x[-1]) == 1 else None
        return x if node.target in ELEMENTWISE and len(given) == 1 else None

    def rewrite(self, node: fx.Node) -> Change:
        """Put a value with its axes apart in a node's place."""
        x = node.all_input_nodes[0]
        given, before, after = self.apart.get(x, x), self.axes(x), self.axes(node)
        with self.gm.graph.inserting_before(node):
            if calls(node, aten.reshape):
                new = given
                if _flat(before) != _flat(after):
                    new = self.call(node, aten.reshape, given, [self.size(atom) for atom in _flat(after)])
            elif (order := _order(node, len(before))) is not None:
                new = self.call(node, aten.permute, given, [place for i in order for place in _places(before)[i]])
            else:
                args = fx.node.map_arg(node.args, lambda n: given if n is x else n)
                new = self.gm.graph.create_node(node.op, node.target, args, node.kwargs, f"{node.name}_apart")
        new.meta[SHAPES] = [_flat(after)]
        self.apart[node] = new
        if node not in self.folded:
            node.replace_all_uses_with(new)
        return Change(node.name, "its axes are apart", (new.name,))

    def call(self, node: fx.Node, target: Any, *args: Any) -> fx.Node:  # noqa: ANN401
        return self.gm.graph.create_node("call_function", target, args, name=f"{node.name}_apart")

    def counts(self, atom: int | str) -> bool:
        """Tell whether an input counts a symbol."""
        return isinstance(atom, int) or any(atom in shape(n) for n in self.inputs)

    def size(self, atom: int | str) -> Any:  # noqa: ANN401
        """Return a number, or a node that counts a symbol."""
        if isinstance(atom, str) and atom not in self.sizes:
            source = next(n for n in self.inputs if atom in shape(n))
            self.sizes[atom] = self.gm.graph.call_method("size", (source, shape(source).index(atom)))
            self.sizes[atom].meta[SHAPES] = atom
        return self.sizes[atom] if isinstance(atom, str) else atom


def _order(node: fx.Node, rank: int) -> list[int] | None:
    """Return which axis comes where, of a transposition; None for another op."""
    if not calls(node, aten.transpose) and not calls(node, aten.permute):
        return None
    given = node.args[1] if node.target is aten.permute else node.args[1:]
    dims = [d % rank for d in given if isinstance(d, int)] if isinstance(given, list | tuple) else []
    if node.target is aten.permute:
        return dims
    swapped = {dims[0]: dims[1], dims[1]: dims[0]}
    return [swapped.get(d, d) for d in range(rank)]


def _flat(axes: Axes) -> Shape:
    return tuple(atom for atoms in axes for atom in atoms)


def _places(axes: Axes) -> list[list[int]]:
    """Return where the parts of each axis are among all parts."""
    starts = [len(_flat(axes[:i])) for i in range(len(axes))]
    return [list(range(start, start + len(atoms))) for start, atoms in zip(starts, axes, strict=True)]


def _factors(size: int | str) -> list[int | str]:
    """[4, "s87"] of "4*s87"; what is no product is one factor."""
    words = str(size).split("*")
    if not all(w.isidentifier() or w.isdecimal() for w in words):
        return [size]
    return [int(w) if w.isdecimal() else w for w in words]


def _refold(axes: Axes, sizes: Shape) -> Axes | None:
    """Return what the axes of a reshaped value are folded from, parts in their order; None where parts do not fit."""
    left = [atom for atom in _flat(axes) if atom != 1]
    found = [_take(left, size) for size in sizes]
    return tuple(atoms for atoms in found if atoms is not None) if None not in found and not left else None


def _take(left: list[int | str], size: int | str) -> tuple[int | str, ...] | None:
    """Return the next parts, as many as a size is the product of; a number among them is divided where it is larger."""
    symbols = [f for f in _factors(size) if isinstance(f, str)]
    number = math.prod(f for f in _factors(size) if isinstance(f, int))
    taken: list[int | str] = []
    while symbols or number > 1:
        atom = left.pop(0) if left else 1
        if isinstance(atom, str) and atom in symbols:
            symbols.remove(atom)
            taken.append(atom)
        elif isinstance(atom, int) and (part := math.gcd(atom, number)) > 1 and part in (atom, number):
            number //= part
            left[:0] = [atom // part] if atom > part else []
            taken.append(taken.pop() * part if taken and isinstance(taken[-1], int) else part)
        else:
            return None
    return tuple(taken) or (1,)
