"""Periods: on which inputs each value's rows depend, where regions end, and which Linears can be split."""

from typing import Any

import torch
from torch import Tensor, fx, nn

from dendrofx.rows.joins import find_joins, spared
from dendrofx.rows.periods import Periods, sources
from dendrofx.rows.samples import SampleAnalysis
from tests.repeated import EXAMPLE, WIDTH, Of, attending, by_columns, dlrm, in_pairs, runs, shared_rows
from tests.rows.models import symbolic

BOTH = {"user": ("user",), "item": ("item",)}


def periods(model: nn.Module, groups: Any = None, example: Any = EXAMPLE) -> Periods:
    gm = symbolic(model, example)
    return Periods(gm, BOTH if groups is None else groups, SampleAnalysis(gm))


def named(found: Periods) -> dict[str, set[str] | None]:
    return {n.name: None if p is None else set(p) for n, p in found.of.items()}


def test_a_value_depends_on_what_its_inputs_depend_on() -> None:
    found = named(periods(dlrm()))
    assert found["user_2"] == {"user"}
    assert found["item_1"] == {"item"}
    assert found["cat"] == found["sigmoid"] == {"user", "item"}
    assert named(periods(dlrm(), {"user": ("user",)}))["cat"] is None


def test_what_every_row_shares_depends_on_nothing() -> None:
    found = named(periods(shared_rows()))
    assert found["expand"] == found["zeros"] == set()


def test_columns_of_one_matrix_are_inputs_of_their_own() -> None:
    gm = symbolic(by_columns(), EXAMPLE)
    assert list(sources(gm, SampleAnalysis(gm))) == ["user[:, 0]", "user[:, 1:65]", "user[:, 65]", "item"]
    found = named(periods(by_columns(), {"ids": ("user[:, 0]", "user[:, 65]")}))
    assert found["embedding"] == {"ids"}
    assert found["cat"] is None


def test_a_matrix_that_is_also_read_whole_is_one_input() -> None:
    model = Of(lambda m, user, item: m.a(user[:, :4]) + m.b(user), a=nn.Linear(4, 4), b=nn.Linear(WIDTH, 4))
    gm = symbolic(model, EXAMPLE)
    assert list(sources(gm, SampleAnalysis(gm))) == ["user", "item"]


def test_columns_that_are_cut_off_in_other_ways() -> None:
    def forward(m: Any, user: Tensor, item: Tensor) -> Tensor:
        first, second = user.split([32, 64], 1)
        return m.a(first) + m.b(second) + item.narrow(1, 2, 4) + item[:, None, 8:16:2].squeeze(1)

    gm = symbolic(Of(forward, a=nn.Linear(32, 4), b=nn.Linear(64, 4)), EXAMPLE)
    assert list(sources(gm, SampleAnalysis(gm)))[:2] == [
        "user.split_with_sizes([32, 64], 1)[0]",
        "user.split_with_sizes([32, 64], 1)[1]",
    ]


def test_where_rows_mix_a_region_ends() -> None:
    model = Of(
        lambda m, user, item: m.late(m.user(user).softmax(0)) + item, user=nn.Linear(WIDTH, 4), late=nn.Linear(4, WIDTH)
    )
    found = periods(model)
    assert [(e.node, e.reason, set(e.period)) for e in found.ends] == [("softmax", "it works along axis 'b'", {"user"})]
    assert named(found)["late"] is None


def test_a_place_in_the_batch_never_repeats() -> None:
    model = Of(
        lambda m, user, item: m.user(user + torch.arange(user.size(0))[:, None]) + item, user=nn.Linear(WIDTH, WIDTH)
    )
    assert named(periods(model))["user_1"] is None


def test_what_spares_a_product_runs_on_distinct_rows() -> None:
    model = Of(lambda m, user, item: m.user(user).relu() + item + user.sigmoid(), user=nn.Linear(WIDTH, WIDTH))
    found = periods(model, {"user": ("user",)})
    assert {n.name for n in spared(found, {})} == {"user_1", "relu"}


def test_keys_and_values_of_a_memory_that_repeats() -> None:
    found = periods(attending(), {"user": ("user",)})
    inside = {n.name for n in spared(found, {})}
    assert {"key", "value"} <= inside
    assert not inside & {"query", "scaled_dot_product_attention", "head"}


def joined(
    function: Any, groups: Any = None, **layers: nn.Module
) -> list[tuple[str, tuple[Any, ...], tuple[int, ...]]]:
    joins = find_joins(periods(Of(function, **layers), groups))
    return [
        (j.linear.name, tuple(None if p is None else sorted(p) for p in j.periods), j.groups) for j in joins.values()
    ]


def test_joined_values_of_different_periods_are_split() -> None:
    top = nn.Linear(2 * WIDTH, 4)
    cat = lambda m, user, item: m.top(torch.cat([user, item], 1))  # noqa: E731
    assert joined(cat, {"user": ("user",)}, top=top) == [("top", (["user"], None), (0, 1))]
    assert joined(cat, top=top) == [("top", (["user"], ["item"]), (0, 1))]
    after = lambda m, user, item: m.top(torch.cat([item, user], 1))  # noqa: E731
    assert joined(after, {"user": ("user",)}, top=top) == [("top", (None, ["user"]), (0, 1))]
    assert joined(lambda m, user, item: m.top(torch.cat([user, user], 1)), top=top) == []
    dropped = lambda m, user, item: m.top(nn.functional.dropout(torch.cat([user, item], -1), 0.1, False))  # noqa: E731
    assert len(joined(dropped, top=top)) == 1
    layers = {"top": nn.Linear(16, 4), "a": nn.Linear(WIDTH, 8), "b": nn.Linear(WIDTH, 8)}
    stacked = lambda m, user, item: m.top(torch.stack([m.a(user), m.b(item)], 1).flatten(1))  # noqa: E731
    assert joined(stacked, {"user": ("user",)}, **layers) == [("top", (["user"], None), (0, 1))]
    turned = lambda m, user, item: m.top(torch.stack([m.a(user), m.b(item)], 2).flatten(1))  # noqa: E731
    assert joined(turned, {"user": ("user",)}, **layers) == []


def test_the_columns_of_products_of_pairs_are_those_of_their_blocks() -> None:
    """Of 11 rows 7 are the user's, and `top` reads 8 columns, 55 pairs and 2 columns."""
    (join,) = [j for j in find_joins(periods(in_pairs(), {"user": ("user",)})).values() if j.pairs is not None]
    assert (join.linear.name, join.periods, join.target) == ("top_0", (frozenset({"user"}), None), None)
    assert [join.width(g) for g in (0, 1)] == [21, 8 + 34 + 2]
    assert sorted(join.order()) == list(range(65))
    first, second = torch.tril_indices(11, 11, -1)
    of_user = [8 + i for i, (a, b) in enumerate(zip(first.tolist(), second.tolist(), strict=True)) if 1 <= b < a <= 7]
    assert join.order()[:21] == of_user


def test_joined_again_and_of_several_repeats() -> None:
    """Each has columns of its own: brought to one period, what repeats would be held back by what does not in a call."""

    def forward(m: Any, user: Tensor, item: Tensor) -> Tensor:
        a, b = user[:, :4], user[:, 4:8]
        return m.top(torch.cat([a, torch.cat([m.item(item), b], 1), a], 1))

    layers = {"top": nn.Linear(20, 4), "item": nn.Linear(WIDTH, 8)}
    apart = {"a": ("user[:, :4]",), "b": ("user[:, 4:8]",)}
    assert joined(forward, apart, **layers) == [("top", (["a"], ["b"], None), (0, 2, 1, 0))]
    assert joined(forward, {**apart, "item": ("item",)}, **layers) == [
        ("top", (["a"], ["b"], ["item"]), (0, 2, 1, 0)),
    ]


def test_a_linear_that_is_called_as_a_function() -> None:
    layers = {"top": nn.Linear(2 * WIDTH, 4)}
    linear = lambda m, user, item: nn.functional.linear(torch.cat([user, item], 1), m.top.weight)  # noqa: E731
    assert joined(linear, {"user": ("user",)}, **layers) == [("linear", (["user"], None), (0, 1))]
    computed = lambda m, user, item: nn.functional.linear(torch.cat([user, item], 1), m.top.weight * 2)  # noqa: E731
    assert joined(computed, {"user": ("user",)}, **layers) == []


def test_sources_are_the_same_nodes_in_every_graph() -> None:
    gm = symbolic(by_columns(), runs([3, 3]))
    nodes = [n for nodes in sources(gm, SampleAnalysis(gm)).values() for n in nodes]
    assert all(isinstance(n, fx.Node) and n.graph is gm.graph for n in nodes)
