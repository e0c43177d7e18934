"""MergeLinears: Linears that read the same live rows become one."""

import copy
from collections.abc import Callable

import pytest
from torch import Tensor, fx, nn

from dendrofx.errors import PassError
from dendrofx.graph.show import graph_text
from dendrofx.passes import DropDeadRows, MarkRows, MergeLinears, PassResult, run_passes
from dendrofx.values.meta import LIVE
from tests.check import OTHER_GEMM, assert_same_output
from tests.rows.models import OfRows, ragged, symbolic


class Subclass(nn.Linear):
    """Its forward may differ."""


def siblings(m: OfRows, x: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
    """Two with a bias, two without, of one value; one of another value."""
    x = x * mask[..., None]
    return m.a(x), m.b(x), m.c(x), m.last(m.a(x).tanh()), m.d(x)


def pair(m: OfRows, x: Tensor, mask: Tensor) -> Tensor:
    x = x * mask[..., None]
    return m.first(x) * m.second(x)


def twice(m: OfRows, x: Tensor, mask: Tensor) -> Tensor:
    x = pair(m, x, mask)
    return m.first(x) * m.second(x)


def chain(m: OfRows, x: Tensor, mask: Tensor) -> Tensor:
    return m.second(m.first(x * mask[..., None]))


def taken(m: OfRows, x: Tensor, mask: Tensor) -> Tensor:
    """The name of the merged Linear is another's."""
    x = x * mask[..., None]
    return m.a_b(m.a(x) * m.b(x))


def one_name(m: OfRows, x: Tensor, mask: Tensor) -> Tensor:
    """Two pairs whose merged Linears would have one name."""
    x = x * mask[..., None]
    x = m.q(x) * m.one["k"](x)
    return m.q(x) * m.two["k"](x)


def of_kinds() -> OfRows:
    layers = {name: nn.Linear(8, 4 + i, bias=i % 2 == 0) for i, name in enumerate("abcd")}
    return OfRows(siblings, **layers, last=nn.Linear(4, 2))


def of_folders() -> OfRows:
    return OfRows(one_name, "q", one=nn.ModuleDict({"k": nn.Linear(8, 8)}), two=nn.ModuleDict({"k": nn.Linear(8, 8)}))


# Model, which become one, as a name and what it was, and the calls of Linears after it.
MERGED: dict[str, tuple[Callable[[], OfRows], list[tuple[str, str]], list[str]]] = {
    "by kind": (of_kinds, [("a_c_a", "a, c, a"), ("b_d", "b, d")], ["a_c_a", "b_d", "last"]),
    "a pair": (lambda: OfRows(pair, "first", "second"), [("first_second", "first, second")], ["first_second"]),
    "a shared pair, once": (
        lambda: OfRows(twice, "first", "second"),
        [("first_second", "first, second")] * 2,
        ["first_second"] * 2,
    ),
    "a name that is taken": (lambda: OfRows(taken, "a", "b", "a_b"), [("a_b_", "a, b")], ["a_b_", "a_b"]),
    "two of one name": (of_folders, [("q_k", "q, one.k"), ("q_k_", "q, two.k")], ["q_k", "q_k_"]),
}
LEFT: dict[str, Callable[[], OfRows]] = {
    "one without bias": lambda: OfRows(pair, "first", second=nn.Linear(8, 8, bias=False)),
    "one of a subclass": lambda: OfRows(pair, "first", second=Subclass(8, 8)),
    "one after the other": lambda: OfRows(chain, "first", "second"),
}


def dropped(model: nn.Module) -> fx.GraphModule:
    """`model` on live rows."""
    return run_passes(symbolic(model, ragged()), [MarkRows("mask"), DropDeadRows("mask")]).graph_module


def merged(gm: fx.GraphModule) -> PassResult:
    """The pass on a copy: `gm` stays what it is compared with."""
    return MergeLinears()(fx.GraphModule(gm, copy.deepcopy(gm.graph)))


@pytest.mark.parametrize("kind", MERGED)
def test_merged(kind: str) -> None:
    model, changed, called = MERGED[kind]
    gm = dropped(model())
    result = merged(gm)
    new = result.graph_module
    assert [(c.site, c.what) for c in result.changed] == [(name, f"merged from {parts}") for name, parts in changed]
    assert [n.target for n in new.graph.nodes if n.op == "call_module"] == called
    assert {n for n, m in new.named_modules() if isinstance(m, nn.Linear)} == set(called)
    for name, parts in changed:
        linear = new.get_submodule(name)
        assert linear.out_features == sum(gm.get_submodule(p).out_features for p in parts.split(", "))
        assert (linear.bias is None) is (gm.get_submodule(parts.split(", ")[0]).bias is None)
    nodes = {n.name: n for n in new.graph.nodes}
    assert all(LIVE in nodes[name].meta for change in result.changed for name in change.nodes)
    assert_same_output(gm, new, ragged(), OTHER_GEMM)


def test_nodes_of_a_pair() -> None:
    result = merged(dropped(MERGED["a pair"][0]()))
    assert [c.nodes for c in result.changed] == [("first_second", "first_part", "second_part")]


@pytest.mark.parametrize("kind", LEFT)
def test_left_as_it_is(kind: str) -> None:
    gm = dropped(LEFT[kind]())
    before = graph_text(gm)
    result = merged(gm)
    assert not result.modified
    assert graph_text(result.graph_module) == before


def test_hooks_are_kept() -> None:
    gm = dropped(OfRows(pair, "first", "second"))
    gm.get_submodule("second").register_forward_hook(lambda _module, _args, out: 2 * out)
    result = merged(gm)
    assert not result.modified
    assert_same_output(gm, result.graph_module, ragged())


def test_padded_linears_are_left() -> None:
    assert not MergeLinears()(symbolic(OfRows(pair, "first", "second"), ragged())).modified


def test_claim_no_siblings_are_left() -> None:
    with pytest.raises(PassError, match=r"^Linears still read the same rows: \[first, second\]$"):
        MergeLinears().ensures(dropped(OfRows(pair, "first", "second")))
