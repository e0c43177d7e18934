"""What a plan says of repeated rows: which run on distinct rows, how many are distinct, and what was split."""

from typing import Any

import torch
from torch import nn

from dendrofx.values.inputs import Inputs
from dendrofx.values.measure import model_macs
from tests.check import OTHER_GEMM
from tests.repeated import BATCHES, WIDTH, Of, dlrm, in_pairs, once, runs


def test_the_plan_says_what_runs_on_which_rows() -> None:
    plan = once(dlrm(), repeated_rows="user").plan
    found = plan.repeated_rows
    assert (found.inputs, found.groups) == (["user"], {"user": ["user"]})
    (region,) = found.regions
    assert (region.inputs, region.products, region.rows, region.distinct) == ("user", 2, 12, 3)
    assert region.split == ["top.0 (96 of 128 columns)"]
    said = "3 of 12 rows of user are computed: 2 products and part of top.0 (96 of 128 columns)"
    assert said in " ".join(str(plan).split())
    assert "repeated rows computed once" in plan.summary()
    (split,) = [s for s in plan.sites if s.name == "top.0"]
    assert split.reason.startswith("split by columns, so that those that repeat run on distinct rows")


def test_what_repeats_is_not_held_back_by_what_does_not() -> None:
    """Columns of the user are joined with an input in which nothing repeats in these calls, and with one that never does."""

    def forward(m: Any, user: Any, item: Any) -> Any:
        return m.top(torch.cat([item, user, item.flip(0)], 1))

    model = Of(forward, top=nn.Linear(3 * WIDTH, 70))
    new = once(model)
    batch = [Inputs.of(runs([12], 1))]
    assert model_macs(model, batch) - model_macs(new, batch) == 11 * WIDTH * 70
    said = " ".join(str(new.plan.repeated_rows).split())
    assert "3 of 12 rows of user are computed: part of top (96 of 288 columns); nothing repeats in this data" in said
    for given in BATCHES.values():
        torch.testing.assert_close(new(**given), model(**given), **OTHER_GEMM)


def test_the_plan_says_so_where_nothing_repeats() -> None:
    def forward(m: Any, user: Any, item: Any) -> Any:
        return m.top(torch.cat([user + item, user.flip(0)], 1))

    plan = once(Of(forward, top=nn.Linear(2 * WIDTH, 70)), runs([1] * 6)).plan.repeated_rows
    assert str(plan).startswith(
        "repeated rows: nothing repeats in this data among rows of item and user; outputs equal"
    )


def test_the_plan_says_how_many_pairs_repeat() -> None:
    said = str(once(in_pairs(), repeated_rows="user").plan.repeated_rows)
    assert "3 of 12 rows of user are computed: 1 product and part of dense (96 of 192 columns)" in said
    assert ", bmm (21 of 55 pairs), top.0 (21 of 65 columns); outputs equal" in said
