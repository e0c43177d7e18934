"""Memory that is written in place, and all values that share it."""

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import fx, nn

from dendrofx.rows.analysis import RowAnalysis
from dendrofx.rows.in_place import written_in_place
from dendrofx.values.meta import SHAPES

aten = torch.ops.aten
Call = Callable[..., fx.Node]


def built(build: Callable[[fx.Node, Call], None]) -> fx.GraphModule:
    """A graph of x, [batch, tokens, 8], and calls that all give values of that shape."""
    graph = fx.Graph()

    def call(name: str, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        node = graph.create_node("call_function", target, args, kwargs, name)
        node.meta[SHAPES] = [("b", "t", 8)]
        return node

    x = graph.placeholder("x")
    x.meta[SHAPES] = [("b", "t", 8)]
    build(x, call)
    graph.output(())
    return fx.GraphModule(nn.Module(), graph)


def through_a_view(x: fx.Node, call: Call) -> None:
    h = call("h", aten.mul, x, 2)
    v = call("v", aten.reshape, h, [-1, 5, 8])
    call("before", aten.exp, v)
    call("write", aten.add_, h, 1)
    call("after", aten.exp, v)
    call("other", aten.exp, x)


def through_a_part(x: fx.Node, call: Call) -> None:
    parts = call("parts", aten.split, call("h", aten.neg, x), 4, -1)
    call("write", aten.zero_, call("part", operator.getitem, parts, 0))


def into_an_argument(x: fx.Node, call: Call) -> None:
    h = call("h", aten.neg, x)
    call("write", aten.add, x, 1, out=h)


def of_the_input(x: fx.Node, call: Call) -> None:
    call("write", aten.relu_, x)


def maybe_the_same(x: fx.Node, call: Call) -> None:
    h = call("h", aten.neg, x)
    call("write", aten.mul_, call("cast", aten.type_as, h, x), 2)


def of_what_is_not_known(x: fx.Node, call: Call) -> None:
    h = call("h", aten.neg, x)
    call("write", aten.mul_, call("made", max, x, h), 2)


def nothing(x: fx.Node, call: Call) -> None:
    h = call("h", aten.mul, x, 2)
    call("same", aten.detach_, call("copy", aten.clone, h))
    call("and", aten.__and__, h, x)


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (through_a_view, ["h", "v", "write"]),
        (through_a_part, ["h", "parts", "part", "write"]),
        (into_an_argument, ["h", "write"]),
        (of_the_input, ["x", "write"]),
        (maybe_the_same, ["h", "cast", "write"]),
        (of_what_is_not_known, ["x", "h", "made", "write"]),
        (nothing, []),
    ],
)
def test_shared_memory(build: Callable[[fx.Node, Call], None], expected: list[str]) -> None:
    found = written_in_place(built(build))
    assert [n.name for n in found] == expected
    assert {w.name for w in found.values()} <= {"write"}


def test_neither_what_will_be_written_nor_what_reads_it_before_is_row_wise() -> None:
    analysis = RowAnalysis(built(through_a_view))
    assert {n.name: str(note) for n, note in analysis.notes.items() if n.op == "call_function"} == {
        "h": "mixes rows: %write writes its value in place",
        "v": "mixes rows: %write writes its value in place",
        "write": "mixes rows: it writes in place",
        "before": "mixes rows: %write writes %v in place later",
        "after": "row-wise",
        "other": "row-wise",
    }
