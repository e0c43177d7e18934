"""A guard over sizes (`values/guards.py`) as nodes of an ONNX graph."""

from __future__ import annotations

import ast
from typing import Any

import numpy as np

from dendrofx.errors import InputError

_BINARY = {ast.Add: "Add", ast.Sub: "Sub", ast.Mult: "Mul", ast.Pow: "Pow"}
_COMPARE = {ast.Eq: "Equal", ast.Lt: "Less", ast.LtE: "LessOrEqual", ast.Gt: "Greater", ast.GtE: "GreaterOrEqual"}
_ROUND = {"math.ceil": "Ceil", "math.floor": "Floor", "math.trunc": "Identity", "round": "Round"}
_DOUBLE, _INT64 = 11, 7  # of `TensorProto`


class GuardNodes:
    """Writes nodes beside those of a graph; numbers are i64[1], quotients f64[1] and truths bool[1].

    Attributes:
        made: the nodes, in order.
    """

    def __init__(self, graph: Any) -> None:  # noqa: ANN401  (onnx has no types)
        self.graph, self.made = graph, list[Any]()
        self.ranks = {i.name: len(i.type.tensor_type.shape.dim) for i in graph.input}
        self._doubles: set[str] = set()
        self._divisors: list[str] = []
        self._count = 0

    def add(self, kind: str, *inputs: str, name: str = "", **attributes: int) -> str:
        """Write a node; return the name of its value."""
        from onnx import helper

        made = self._name()
        node = helper.make_node(kind, list(inputs), [made], name=name or made)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.made.append(node)
        return made

    def constant(self, value: Any) -> str:  # noqa: ANN401
        """Write a tensor; return its name."""
        from onnx import numpy_helper

        made = self._name()
        self.graph.initializer.append(numpy_helper.from_array(value, made))
        return made

    def value(self, guard: str) -> str:
        """Write a guard; return the name of its truth.

        Raises:
            InputError: it has a part that has no form here.
        """
        self._divisors = []
        holds = self._of(ast.parse(guard, mode="eval").body)
        return self._joined("And", [holds, *(self.add("Not", zero) for zero in self._divisors)])

    def _name(self) -> str:
        self._count += 1
        return f"dendrofx_guard_{self._count}"

    def _of(self, tree: ast.expr) -> str:
        if isinstance(tree, ast.Constant) and isinstance(tree.value, int):
            return self._number(tree.value)
        if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
            return self.add("Neg", self._of(tree.operand))
        if isinstance(tree, ast.BinOp):
            return self._binary(type(tree.op), self._of(tree.left), self._of(tree.right))
        if isinstance(tree, ast.BoolOp):
            return self._joined("And" if isinstance(tree.op, ast.And) else "Or", [self._of(v) for v in tree.values])
        if isinstance(tree, ast.Compare):
            values = [self._of(v) for v in (tree.left, *tree.comparators)]
            pairs = zip(tree.ops, values[:-1], values[1:], strict=True)
            return self._joined("And", [self._compared(type(op), a, b) for op, a, b in pairs])
        if isinstance(tree, ast.Call):
            return self._called(tree)
        raise InputError(f"`{ast.unparse(tree)}`, of which the sizes of a call depend, has no form in ONNX")

    def _binary(self, kind: type[ast.operator], a: str, b: str) -> str:
        if kind in _BINARY:
            return self._made(_BINARY[kind], a, b)
        if kind is ast.Div:
            return self._double(self.add("Div", self._as_double(a), self._as_double(b)))
        zero = self.add("Equal", b, self._number(0))
        self._divisors.append(zero)
        b = self.add("Add", b, self.add("Cast", zero, to=_INT64))  # by 0 the runtime would end the process
        rest = self.add("Mod", a, b)
        return rest if kind is ast.Mod else self.add("Div", self.add("Sub", a, rest), b)

    def _compared(self, kind: type[ast.cmpop], a: str, b: str) -> str:
        if kind is ast.NotEq:
            return self.add("Not", self._made("Equal", a, b))
        return self._made(_COMPARE[kind], a, b)

    def _called(self, tree: ast.Call) -> str:
        name, given = ast.unparse(tree.func), tree.args
        if name in ("min", "max"):
            return self._joined(name.capitalize(), [self._of(v) for v in given])
        if name in _ROUND:
            whole = self.add(_ROUND[name], self._as_double(self._of(given[0])))
            return self.add("Cast", whole, to=_INT64)
        source, _, what = name.rpartition(".")
        if what == "dim":
            return self._number(self.ranks[source])
        axis = int(ast.literal_eval(given[0]))
        return self.add("Shape", source, start=axis, end=axis + 1)

    def _joined(self, kind: str, values: list[str]) -> str:
        first, *rest = values
        for value in rest:
            first = self.add(kind, first, value)
        return first

    def _made(self, kind: str, a: str, b: str) -> str:
        """Write a node of two numbers, both f64 where one is."""
        if a not in self._doubles and b not in self._doubles:
            return self.add(kind, a, b)
        made = self.add(kind, self._as_double(a), self._as_double(b))
        return self._double(made)

    def _as_double(self, value: str) -> str:
        return value if value in self._doubles else self._double(self.add("Cast", value, to=_DOUBLE))

    def _double(self, value: str) -> str:
        self._doubles.add(value)
        return value

    def _number(self, value: int) -> str:
        return self.constant(np.array([value], np.int64))
