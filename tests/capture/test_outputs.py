"""Outputs are taken apart and put together again in every form."""

from collections import OrderedDict, defaultdict
from typing import Any

import pytest
import torch

from dendrofx.outputs import OutputForm, flatten
from tests.capture.calls import Encoded, Pair
from tests.capture.check import same

A, B = torch.zeros(2), torch.ones(3)
# The output, the names of its tensors, and whether TorchScript returns it as it is.
OUTPUTS: dict[str, tuple[Any, tuple[str, ...], bool]] = {
    "tensor": (A, ("output",), True),
    "tuple": ((A, B), ("0", "1"), True),
    "list": ([A, B], ("0", "1"), True),
    "tuple with constants": ((A, None, 3, "x"), ("0",), True),
    "nested tuple": ((A, (B, A)), ("0", "1.0", "1.1"), True),
    "dict": ({"a": A, "b": B}, ("a", "b"), True),
    "dict called output": ({"output": A}, ("output",), True),
    "dict by number": ({0: A, "x": B}, ("0", "x"), False),
    "dict with None": ({"a": A, "n": None}, ("a",), False),
    "ordered dict": (OrderedDict(b=A, a=B), ("b", "a"), False),
    "list in dict": ({"a": [A, (B,)]}, ("a.0", "a.1.0"), False),
    "list of lists": ([[A], [B]], ("0.0", "1.0"), False),
    "dataclass": (Encoded(A, B), ("hidden", "pooled"), False),
    "dataclass in tuple": ((Encoded(A, B, A), B), ("0.hidden", "0.pooled", "0.extra", "1"), False),
    "named tuple": (Pair(A, B), ("first", "second"), False),
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_taken_apart_and_put_together(kind: str) -> None:
    output, names, scripts = OUTPUTS[kind]
    tensors, form = flatten(output)
    assert form.names == names
    assert form.scripts is scripts
    again = form.build(tensors)
    assert type(again) is type(output)
    assert same(again, output)
    assert form.is_dict is (isinstance(output, dict | Encoded) and all(n.isidentifier() for n in names))


def test_what_holds_no_plain_values_is_left_out() -> None:
    tensors, form = flatten({"states": A, "cache": object()})
    assert form.leaves("left out") == (OutputForm("cache", "left out", "object"),)
    assert not form.scripts
    assert form.build(tensors) == {"states": A, "cache": None}
    assert flatten(object())[1] == OutputForm("output", "left out", "object")


def test_a_mapping_without_such_a_constructor_cannot_be_built() -> None:
    tensors, form = flatten(defaultdict(int, a=A))
    with pytest.raises(TypeError):
        form.build(tensors)
