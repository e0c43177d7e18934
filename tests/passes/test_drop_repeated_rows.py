"""DropRepeatedRows: what runs on distinct rows, where values are expanded, and what stays on all rows."""

import copy
from typing import Any

import torch
from torch import Tensor, fx, nn

from dendrofx.passes import DropRepeatedRows, run_passes
from dendrofx.runtime.pairs import joined_pairs, pair_products
from dendrofx.runtime.repeats import (
    broadcast_runs,
    count_runs,
    distinct_rows,
    expand_runs,
    match_runs,
    row_runs,
    same_rows,
)
from dendrofx.runtime.split_linear import split_linear
from dendrofx.values.meta import RUNS
from tests.repeated import EXAMPLE, WIDTH, Of, attending, by_columns, dcn, dlrm, in_pairs, summed
from tests.rows.models import symbolic

USER = {"user": ("user",)}
BOTH = {**USER, "item": ("item",)}


def dropped(model: nn.Module, groups: Any = None) -> fx.GraphModule:
    gm = symbolic(model, EXAMPLE)
    own = fx.GraphModule(gm, copy.deepcopy(gm.graph))
    return run_passes(own, [DropRepeatedRows(USER if groups is None else groups)]).graph_module


def names(gm: fx.GraphModule, target: object) -> list[str]:
    return [n.name for n in gm.graph.nodes if n.target is target]


def distinct(gm: fx.GraphModule) -> set[str]:
    """The modules that run on distinct rows."""
    return {str(n.target) for n in gm.graph.nodes if n.op == "call_module" and RUNS in n.meta}


def test_a_tower_in_front_of_a_linear_of_joined_values() -> None:
    gm = dropped(dlrm())
    assert distinct(gm) == {"user.0", "user.2"}
    assert names(gm, distinct_rows) == ["user_distinct"]
    assert names(gm, split_linear) == ["top_0"]
    assert names(gm, expand_runs) == []
    assert names(gm, torch.ops.aten.cat) == []
    assert (len(names(gm, same_rows)), len(names(gm, row_runs)), len(names(gm, match_runs))) == (1, 1, 2)


def test_the_first_cross_layer_is_split_and_the_joined_value_is_there_too() -> None:
    gm = dropped(dcn())
    assert names(gm, split_linear) == ["cross", "deep_0"]
    assert len(names(gm, torch.ops.aten.cat)) == 2
    whole = [n.args[3] for n in gm.graph.nodes if n.target is split_linear]
    assert whole[0] is whole[1]
    assert distinct(gm) == set()


def test_sums_and_products_read_one_row_without_a_copy() -> None:
    gm = dropped(summed())
    assert distinct(gm) == {"user.0", "user.2"}
    # sigmoid is computed on distinct rows; what stack and the output read is copied
    assert sorted(names(gm, broadcast_runs) + names(gm, expand_runs)) == ["relu_1_expanded", "sigmoid_expanded"]
    assert names(gm, broadcast_runs) == ["sigmoid_expanded"]


def test_keys_and_values_of_a_memory() -> None:
    gm = dropped(attending())
    assert distinct(gm) == {"key", "value"}
    assert len(names(gm, broadcast_runs)) == 2  # one memory for all is read without a copy


def test_products_of_pairs_are_computed_in_blocks() -> None:
    gm = dropped(in_pairs())
    assert distinct(gm) == {"user"}
    blocks = [n for n in gm.graph.nodes if n.target is pair_products]
    assert [n.meta.get(RUNS) for n in blocks] == [None, "user"]
    assert names(gm, joined_pairs) == ["bmm_joined"]
    _, split = [n for n in gm.graph.nodes if n.target is split_linear]
    full, ordered = (gm.get_parameter(str(split.args[4][0].target)), gm.get_buffer(str(split.args[4][1].target)))
    assert full.shape == ordered.shape
    assert sorted(full[0].tolist()) == sorted(ordered[0].tolist())
    assert names(gm, torch.ops.aten.bmm) == []


def test_sizes_count_runs() -> None:
    model = Of(
        lambda m, user, item: m.a(user.view(user.size(0), 4, -1)).view(user.size(0), 8) + item[:, :8],
        a=nn.Linear(24, 2),
    )
    gm = dropped(model)
    assert len(names(gm, count_runs)) == 1
    for given in (EXAMPLE, {k: v[:1].repeat(5, 1) for k, v in EXAMPLE.items()}):
        torch.testing.assert_close(gm(**given), model(**given))


def test_columns_that_repeat_together_share_their_runs() -> None:
    gm = dropped(by_columns(), {"user": ("user[:, 0]", "user[:, 1:65]", "user[:, 65]")})
    (same,) = [n for n in gm.graph.nodes if n.target is same_rows]
    assert len(same.args[0]) == 3
    assert names(gm, split_linear) == ["top_0"]


def test_rows_that_repeat_in_every_input() -> None:
    """Behind the join runs are shorter; the last value is expanded to all rows."""
    gm = dropped(dlrm(), BOTH)
    assert distinct(gm) == {"user.0", "user.2", "item", "top.2"}
    assert [n.meta[RUNS] for n in gm.graph.nodes if n.target is row_runs] == ["user", "item", "item and user"]
    (output,) = [n for n in gm.graph.nodes if n.op == "output"]
    assert output.all_input_nodes[0].target is expand_runs


def test_what_spares_no_product_stays_on_all_rows() -> None:
    model = Of(lambda m, user, item: m.top(user.sigmoid() * 2 + item), top=nn.Linear(WIDTH, 2))
    gm = symbolic(model, EXAMPLE)
    own = fx.GraphModule(gm, copy.deepcopy(gm.graph))
    result = run_passes(own, [DropRepeatedRows(USER)])
    assert not result.modified
    assert [n.target for n in result.graph_module.graph.nodes] == [n.target for n in gm.graph.nodes]


def test_a_value_that_is_written_in_place_stays_as_it_is() -> None:
    def forward(m: Any, user: Tensor, item: Tensor) -> Tensor:
        h = m.a(user)
        h.add_(1)
        return m.b(h) + item

    model = Of(forward, a=nn.Linear(WIDTH, WIDTH), b=nn.Linear(WIDTH, WIDTH))
    assert distinct(dropped(model)) == set()
