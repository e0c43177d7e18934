"""Checks in an ONNX graph: nodes that read out of range where a call is refused, named after the reason.

Those of values are traced with the graph (`branchless/checked.py`) and named here. Those of sizes are written here, over the shapes
of the inputs: what a program assumes about sizes is lost in ONNX, whose runtime takes any size that its operators happen to take.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dendrofx.branchless.checked import MARK
from dendrofx.formats.onnx_guards import GuardNodes

PREFIX = "dendrofx check "  # of the names of nodes that check; a number follows, and what they say
_INT64 = 7  # `TensorProto.INT64`


def name_checks(graph: Any, messages: Sequence[str]) -> None:  # noqa: ANN401
    """Name the nodes that check after what they say: those that read a tensor of one `MARK`."""
    from onnx import numpy_helper

    marks = {}
    for tensor in graph.initializer:
        if tensor.data_type == _INT64 and list(tensor.dims) == [1]:
            marks[tensor.name] = int(numpy_helper.to_array(tensor)[0]) - MARK
    for node in graph.node:
        number = marks.get(node.input[0], -1) if node.op_type == "Gather" else -1
        if 0 <= number < len(messages):
            node.name = f"{PREFIX}{number}: {messages[number]}"


def add_size_checks(graph: Any, guards: Sequence[str]) -> None:  # noqa: ANN401
    """Check guards before anything else is computed: all inputs are read by way of a reshape that needs the checks."""
    if not guards:
        return
    nodes = GuardNodes(graph)
    zero = nodes.constant(np.zeros(1, np.int64))
    for number, guard in enumerate(guards):
        place = nodes.add("Cast", nodes.add("Not", nodes.value(guard)), to=_INT64)
        read = nodes.add("Gather", zero, place, name=f"{PREFIX}{number}: a call is to have {guard}")
        zero = nodes.add("Add", read, zero)
    own = list(graph.node)
    for given in graph.input:
        shape = nodes.add("Add", nodes.add("Shape", given.name), zero)
        checked = nodes.add("Reshape", given.name, shape, allowzero=1)
        for node in own:
            node.input[:] = [checked if name == given.name else name for name in node.input]
    del graph.node[:]
    graph.node.extend([*nodes.made, *own])
