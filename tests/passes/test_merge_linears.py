"""MergeLinears: Linears that read the same live rows become one."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from dendrofx.errors import PassError
from dendrofx.graph.capture import capture
from dendrofx.graph.show import graph_text
from dendrofx.passes import DropDeadRows, MarkRows, MergeLinears, run_passes
from dendrofx.passes.base import PassResult
from dendrofx.values.inputs import Inputs
from dendrofx.values.meta import LIVE
from tests.check import OTHER_GEMM, assert_same_output


def dropped(model: nn.Module) -> fx.GraphModule:
    """`model` of x and mask, captured, on live rows."""
    gm = capture(model.eval().requires_grad_(False), Inputs.of(example()), shapes=True)
    return run_passes(gm, [MarkRows("mask"), DropDeadRows("mask")]).graph_module


def example() -> dict[str, Tensor]:
    return {"x": torch.randn(3, 4, 8), "mask": torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]])}


def merged(gm: fx.GraphModule) -> PassResult:
    """The pass on a copy: `gm` stays what it is compared with."""
    return MergeLinears()(fx.GraphModule(gm, copy.deepcopy(gm.graph)))


def linears(gm: fx.GraphModule) -> list[str]:
    return [str(n.target) for n in gm.graph.nodes if n.op == "call_module"]


class Siblings(nn.Module):
    """Four Linears of one value: two with a bias, two without; and one of another value."""

    def __init__(self, bias: tuple[bool, ...] = (True, False, True, False)) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(8, 4 + i, bias=b) for i, b in enumerate(bias))
        self.last = nn.Linear(4, 2)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        x = x * mask[..., None]
        return self.a(x), self.b(x), self.c(x), self.last(self.a(x).tanh()), self.d(x)


class Pair(nn.Module):
    """Two Linears of one value."""

    def __init__(self, second: nn.Module | None = None, hooked: bool = False) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), second or nn.Linear(8, 8)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x * mask[..., None]
        return self.first(x) * self.second(x)


class Shared(Pair):
    """Both called twice, on two values."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = super().forward(x, mask)
        return self.first(x) * self.second(x)


class Subclass(nn.Linear):
    """Its forward may differ."""


def test_by_kind() -> None:
    gm = dropped(Siblings())
    result = merged(gm)
    assert [(c.site, c.what) for c in result.changed] == [("a_c_a", "merged from a, c, a"), ("b_d", "merged from b, d")]
    assert linears(result.graph_module) == ["a_c_a", "b_d", "last"]
    assert result.graph_module.get_submodule("a_c_a").out_features == 4 + 6 + 4
    assert result.graph_module.get_submodule("b_d").bias is None
    assert_same_output(gm, result.graph_module, example(), OTHER_GEMM)


def test_query_key_value() -> None:
    gm = dropped(Pair())
    result = merged(gm)
    assert [c.nodes for c in result.changed] == [("first_second", "first_part", "second_part")]
    assert sorted(name for name, _ in result.graph_module.named_parameters()) == [
        "first_second.bias",
        "first_second.weight",
    ]
    new = [n for n in result.graph_module.graph.nodes if n.name in ("first_second", "first_part", "second_part")]
    assert all(LIVE in n.meta for n in new)
    assert_same_output(gm, result.graph_module, example(), OTHER_GEMM)


def test_a_shared_pair_is_merged_once() -> None:
    gm = dropped(Shared())
    result = merged(gm)
    assert linears(result.graph_module) == ["first_second", "first_second"]
    assert [n for n, _ in result.graph_module.named_modules() if n] == ["first_second"]
    assert_same_output(gm, result.graph_module, example(), OTHER_GEMM)


def without_bias() -> nn.Module:
    return Pair(nn.Linear(8, 8, bias=False))


def of_a_subclass() -> nn.Module:
    return Pair(Subclass(8, 8))


class Chain(Pair):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.second(self.first(x * mask[..., None]))


@pytest.mark.parametrize("make", [without_bias, of_a_subclass, Chain])
def test_left_as_it_is(make: Any) -> None:
    gm = dropped(make())
    before = graph_text(gm)
    result = merged(gm)
    assert not result.modified
    assert graph_text(result.graph_module) == before


def test_hooks_are_kept() -> None:
    gm = dropped(Pair())
    gm.get_submodule("second").register_forward_hook(lambda _module, _args, out: 2 * out)
    result = merged(gm)
    assert not result.modified
    assert_same_output(gm, result.graph_module, example())


def test_padded_linears_are_left() -> None:
    gm = capture(Pair().eval().requires_grad_(False), Inputs.of(example()), shapes=True)
    assert not MergeLinears()(gm).modified


class Clash(nn.Module):
    """The name of the merged Linear is taken."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.a_b = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x * mask[..., None]
        return self.a_b(self.a(x) * self.b(x))


class OneName(nn.Module):
    """Two pairs whose merged Linears would have one name."""

    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(8, 8)
        self.one, self.two = nn.ModuleDict({"k": nn.Linear(8, 8)}), nn.ModuleDict({"k": nn.Linear(8, 8)})

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x * mask[..., None]
        x = self.q(x) * self.one["k"](x)
        return self.q(x) * self.two["k"](x)


@pytest.mark.parametrize("kind", [Clash, OneName])
def test_names_that_are_taken(kind: type[nn.Module]) -> None:
    gm = dropped(kind())
    result = merged(gm)
    assert result.modified
    assert_same_output(gm, result.graph_module, example(), OTHER_GEMM)


def test_claim_no_siblings_are_left() -> None:
    with pytest.raises(PassError, match=r"^Linears still read the same rows: \[first, second\]$"):
        MergeLinears().ensures(dropped(Pair()))
