"""Guards: what a graph assumes about the sizes of its inputs, checked in every call.

A capture may fix a size, or that two sizes are equal, where the model does not. Whatever it has fixed is written down as an
expression over the inputs' sizes, and a call for which it does not hold is refused by name, never computed:

    docs.size(0) == 50
    (q.size(0) % 7) != 0
    x.dim() == 2

In Python the expressions are evaluated before the graph is called; `add_guards` makes them nodes of a graph that is scripted, so
that an artifact checks them too.
"""

from __future__ import annotations

import ast
import functools
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from types import CodeType
from typing import Any

import sympy
from torch import Tensor, fx

from dendrofx.errors import CaptureError, InputError
from dendrofx.runtime.require import require
from dendrofx.runtime.size_ops import nearest_even, whole_part

_BINARY: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod, ast.Pow: operator.pow, ast.Div: operator.truediv,
}  # fmt: skip
_COMPARE: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}  # fmt: skip


_OF_ONE: dict[str, Callable[[Any], Any]] = {
    "math.ceil": math.ceil, "math.floor": math.floor, "math.trunc": whole_part, "round": nearest_even,
}  # fmt: skip
_OF_TWO: dict[str, Callable[[Any, Any], Any]] = {"min": min, "max": max}
_NAMES: dict[str, Any] = {**_OF_TWO, "math": math, "round": round}
_SIZE = r"\w+\.size\(\d+\)"


class SizeError(InputError):
    """A call with sizes that its graph was not captured for."""


def from_export(code: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """Return the guards that torch.export states, in our form.

    Args:
        code: of an exported program, such as `L['tensors'][0].size()[1] == 16`.
        names: of the tensor inputs, in order.

    Raises:
        CaptureError: one that cannot be checked in a call, by its text.
    """
    found = []
    for line in code:
        text = re.sub(r"L\['tensors'\]\[(\d+)\]", lambda m: names[int(m[1])], " ".join(line.split()))
        text = re.sub(r"\.size\(\)\[(\d+)\]", r".size(\1)", text)
        _nodes(ast.parse(text, mode="eval").body, fx.Graph(), {})
        found.append(_sorted(ast.unparse(ast.parse(text, mode="eval"))))
    return tuple(dict.fromkeys(found))


def equal(first: str, second: str) -> str:
    """Return the guard that two sizes are equal, in one order."""
    return " == ".join(sorted([first, second]))


def axes(name: str, count: int) -> str:
    """Return the guard that an input has so many axes."""
    return f"{name}.dim() == {count}"


def is_simple(guard: str) -> bool:
    """Return whether a guard only fixes a size, equals two, or bounds one: what a graph may well fail on by itself."""
    return re.fullmatch(rf"{_SIZE} (== {_SIZE}|[=<>]= \d+)", guard) is not None


def is_equality(guard: str) -> bool:
    """Return whether a guard says that two sizes are equal: that inputs fit together, not that the graph is made for one size."""
    return re.fullmatch(f"{_SIZE} == {_SIZE}", guard) is not None


def _sorted(guard: str) -> str:
    return equal(*guard.split(" == ")) if is_equality(guard) else guard


def independent(guards: Sequence[str]) -> tuple[str, ...]:
    """Return guards without those that follow from others that fix a size or say that two are equal; simple ones first.

    Example:
        >>> independent(["x.size(0) == 32", "x.size(0) // 8 != 1", "q.size(0) % 7 != 0"])
        ('x.size(0) == 32', 'q.size(0) % 7 != 0')
    """
    simple = [g for g in dict.fromkeys(guards) if is_equality(g) or re.fullmatch(rf"{_SIZE} == \d+", g)]
    known: dict[str, str] = {}
    for guard in simple:
        first, second = guard.split(" == ")
        known[second if is_equality(guard) else first] = known.get(first, first) if is_equality(guard) else second
    left = [g for g in dict.fromkeys(guards) if g in simple or not _follows(_substituted(g, known))]
    return tuple(sorted(left, key=lambda g: not is_simple(g)))  # which are checked first: a remainder may be by 0


def _substituted(guard: str, known: Mapping[str, str]) -> str:
    """Return a guard with sizes replaced by what they are equal to."""
    for _ in range(len(known)):
        guard = re.sub(_SIZE, lambda m: known.get(m[0], m[0]), guard)
    return guard


def _follows(guard: str) -> bool:
    """Return whether a guard holds whatever the sizes are; where this is not seen, it is taken not to."""
    sizes: dict[str, sympy.Symbol] = {}

    def symbol(match: re.Match[str]) -> str:
        name = f"s{len(sizes)}" if match[0] not in sizes else str(sizes[match[0]])
        sizes.setdefault(match[0], sympy.Symbol(name, integer=True, positive=True))
        return name

    text = re.sub(_SIZE, symbol, guard)
    if sizes and "!=" in text:  # of expressions, which are different and may be equal
        return False
    try:
        return bool(eval(text, {"__builtins__": _NAMES}, {str(s): s for s in sizes.values()}))
    except TypeError:  # a relation that depends on the sizes
        return False


def broken(guards: Sequence[str], tensors: Mapping[str, Tensor]) -> str | None:
    """Return the first guard that some inputs break; None where all hold."""
    return next((g for g in guards if not _holds(g, tensors)), None)


def _holds(guard: str, tensors: Mapping[str, Tensor]) -> bool:
    try:
        return bool(eval(_compiled(guard), {"__builtins__": _NAMES}, dict(tensors)))  # of our own expressions
    except IndexError:  # fewer axes than in the example: the graph says so itself
        return True
    except ZeroDivisionError:
        return False


@functools.cache
def _compiled(guard: str) -> CodeType:
    return compile(guard, f"<guard {guard}>", "eval")


def refusal(model: str, guard: str) -> str:
    """Return the message for a call that breaks a guard."""
    why = (
        "its budget is about samples of these axes" if ".dim()" in guard else "computes something else for other sizes"
    )
    return f"{model} was captured for {guard} alone, and {why}: transform it again with example_inputs= of these sizes"


def add_guards(graph: fx.Graph, model: str, guards: Sequence[str]) -> None:
    """Check guards as soon as a graph has its inputs, which is changed in place; a call that breaks one raises."""
    inputs = {str(n.target): n for n in graph.nodes if n.op == "placeholder"}
    last = [n for n in graph.nodes if n.op == "placeholder"][-1]  # other nodes may stand between them
    with graph.inserting_before(last.next):
        for guard in guards:
            holds = _nodes(ast.parse(guard, mode="eval").body, graph, inputs)
            graph.call_function(require, (holds, refusal(model, guard)))


def _nodes(tree: ast.expr, graph: fx.Graph, inputs: dict[str, fx.Node]) -> Any:  # noqa: ANN401
    """Return the nodes of an expression; a constant is itself."""
    if isinstance(tree, ast.Constant) and isinstance(tree.value, int):
        return tree.value
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
        return graph.call_function(operator.neg, (_nodes(tree.operand, graph, inputs),))
    if isinstance(tree, ast.BinOp) and (function := _BINARY.get(type(tree.op))) is not None:
        return graph.call_function(function, tuple(_nodes(side, graph, inputs) for side in (tree.left, tree.right)))
    if isinstance(tree, ast.Compare):
        return _comparison(tree, graph, inputs)
    if isinstance(tree, ast.BoolOp):
        joined = operator.and_ if isinstance(tree.op, ast.And) else operator.or_
        first, *rest = (_nodes(v, graph, inputs) for v in tree.values)
        for value in rest:
            first = graph.call_function(joined, (first, value))
        return first
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id in _OF_TWO:
        values = [_nodes(v, graph, inputs) for v in tree.args]
        function = _OF_TWO[tree.func.id]
        return functools.reduce(lambda a, b: graph.call_function(function, (a, b)), values)
    if isinstance(tree, ast.Call) and (known := _OF_ONE.get(ast.unparse(tree.func))) is not None:
        return graph.call_function(known, (_nodes(tree.args[0], graph, inputs),))
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Attribute) and tree.func.attr == "size":
        assert isinstance(tree.func.value, ast.Name)
        name, (axis,) = tree.func.value.id, tree.args
        assert isinstance(axis, ast.Constant)
        assert isinstance(axis.value, int)
        node = inputs.get(name) or graph.placeholder(name)
        return graph.call_method("size", (node, axis.value))
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Attribute) and tree.func.attr == "dim":
        assert isinstance(tree.func.value, ast.Name)
        return graph.call_method("dim", (inputs[tree.func.value.id],))
    raise CaptureError(f"the graph holds for `{ast.unparse(tree)}` alone, which cannot be checked in each call")


def _comparison(tree: ast.Compare, graph: fx.Graph, inputs: dict[str, fx.Node]) -> Any:  # noqa: ANN401
    """Write the nodes of `a < b <= c`, pair by pair."""
    values = [_nodes(v, graph, inputs) for v in (tree.left, *tree.comparators)]
    pairs = zip(tree.ops, values[:-1], values[1:], strict=True)
    first, *rest = (graph.call_function(_COMPARE[type(op)], (a, b)) for op, a, b in pairs)
    for value in rest:
        first = graph.call_function(operator.and_, (first, value))
    return first
