"""Outputs are taken apart and put together again in every form."""

from collections import OrderedDict, defaultdict
from typing import Any

import pytest
import torch
from torch import Tensor

import dendrofx
from dendrofx.values.outputs import TreeSpec, flatten
from tests.graph.capture.calls import Encoded, Pair
from tests.graph.capture.check import same
from tests.models import Mlp

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
    again = form.unflatten(tensors)
    assert type(again) is type(output)
    assert same(again, output)
    assert form.is_dict is (isinstance(output, dict | Encoded) and all(n.isidentifier() for n in names))


def test_what_holds_no_plain_values_is_left_out() -> None:
    tensors, form = flatten({"states": A, "cache": object()})
    assert form.leaves("left out") == (TreeSpec("cache", "left out", "object"),)
    assert not form.scripts
    assert form.unflatten(tensors) == {"states": A, "cache": None}
    assert flatten(object())[1] == TreeSpec("output", "left out", "object")


def test_a_mapping_without_such_a_constructor_cannot_be_built() -> None:
    tensors, form = flatten(defaultdict(int, a=A))
    with pytest.raises(TypeError):
        form.unflatten(tensors)


class Sized(Mlp):
    """Returns a size, as it is and as a part of a number, beside a tensor."""

    def __init__(self, kind: type) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Any:
        if (x != x).any():  # so that it is traced, which makes tensors of sizes
            raise ValueError
        y, size = super().forward(x), x.shape[1]
        return {"y": y, "size": size} if self.kind is dict else self.kind((size * 2, y))


@pytest.mark.parametrize("kind", [dict, tuple, list])
def test_sizes_among_outputs_of_a_trace_stay_numbers(kind: type) -> None:
    model, x = Sized(kind).eval(), torch.randn(6, 5, 16)
    made = dendrofx.transform(model, x, light=dendrofx.LowRank(4), options=dendrofx.Options(decide=False))
    assert "captured by trace" in made.plan.capture
    assert flatten(made(x))[1] == flatten(model(x))[1]
    loaded = dendrofx.script(made)(x)
    assert [t.shape for t in flatten(loaded)[0]] == [(6, 5, 8)]  # the artifact returns tensors alone
    with pytest.raises(dendrofx.InputError, match=r"x\.size\(1\) == 5"):
        made(torch.randn(6, 4, 16))


@pytest.mark.parametrize("kind", [dict, list])
def test_sizes_beside_tensors_need_inputs(kind: type, capfd: pytest.CaptureFixture[str]) -> None:
    class Plain(Mlp):
        def forward(self, x: Tensor) -> Any:
            y, size = super().forward(x), x.size(0) + 1
            return {"y": y, "size": size} if kind is dict else [y, size]

    with pytest.raises(dendrofx.CaptureError, match="none that TorchScript can return"):
        dendrofx.transform(Plain().eval(), light=dendrofx.LowRank(4))
    assert capfd.readouterr().err == ""
