"""`transform(repeated_rows=...)` from end to end: models and repeats, and that every row keeps its result."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import dendrofx
from dendrofx import InputError, Plan, RoutedModule
from dendrofx.rewriting.repeated_rows import grouped
from dendrofx.values.counts import executed_macs
from dendrofx.values.inputs import Inputs
from dendrofx.values.measure import counted, model_macs
from dendrofx.values.outputs import flatten
from tests.check import OTHER_GEMM, SAME_GEMM
from tests.made import ROUND_TRIPS
from tests.repeated import BATCHES, EXAMPLE, MODELS, WIDTH, Given, Of, dlrm, once, runs

PLAIN = ("none repeats", "few rows repeat", "equal but not adjacent", "one row", "no row")
NAMED: dict[str, Any] = {"every input": True, "the user": "user"}


@cache
def made(kind: str, named: str) -> tuple[Of, RoutedModule]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MODELS[kind]()
        return model, once(model, repeated_rows=NAMED[named])


def assert_same(model: nn.Module, new: Any, given: Given, tolerance: dict[str, Any] = OTHER_GEMM) -> None:
    """They agree on a batch, in units of the largest value."""
    for a, b in zip(flatten(model(**given))[0], flatten(new(**given))[0], strict=True):
        scale = float(a.abs().max()) if a.numel() and bool(a.isfinite().all()) else 1.0
        torch.testing.assert_close(b / scale, a / scale, **tolerance, equal_nan=True)


@pytest.mark.parametrize("named", ["every input", pytest.param("the user", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", MODELS)
def test_every_row_keeps_its_result(kind: str, named: str) -> None:
    model, new = made(kind, named)
    assert new.plan.repeated_rows.status == "distinct"
    frozen = dendrofx.script(new, freeze=True)
    for what, given in BATCHES.items():
        for ready in (new, frozen):
            # where too few rows repeat, it is the original, operation by operation
            assert_same(model, ready, given, SAME_GEMM if what in PLAIN else OTHER_GEMM)


@pytest.mark.parametrize("way", ROUND_TRIPS)
def test_on_every_way_that_a_module_travels(way: str) -> None:
    model, new = made("dlrm", "every input")
    travelled = ROUND_TRIPS[way](new)
    for given in BATCHES.values():
        assert_same(model, travelled, given)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.0])
def test_rows_that_are_not_finite(value: float) -> None:
    model, new = made("dlrm", "every input")
    given = runs([6, 6])
    given["user"][2:8, 3] = value
    assert_same(model, new, given)


def test_the_sign_of_zero_reaches_an_output() -> None:
    """1 / x tells 0.0 from -0.0: these rows are not equal."""
    model = Of(
        lambda m, user, item: 1 / m.user(user).abs().mul(user) + m.item(item),
        user=nn.Linear(4, 4),
        item=nn.Linear(4, 4),
    )
    new = once(model, {"user": torch.randn(1, 4).repeat(8, 1), "item": torch.randn(8, 4)})
    zeros = torch.zeros(8, 4)
    zeros[3:] = -0.0
    given = {"user": zeros, "item": torch.randn(8, 4)}
    assert torch.equal(new(**given), model(**given))
    assert set(new(**given).flatten().tolist()) == {torch.inf, -torch.inf}


@pytest.mark.parametrize("kind", MODELS)
def test_counted_multiply_adds_are_those_of_the_call(kind: str) -> None:
    """What torch's own counter finds in the rewritten graph is what the counts say of it."""
    model, new = made(kind, "every input")
    for what in ("one user", "three users", "items repeat", "all repeats", "none repeats"):
        batch = [Inputs.of(BATCHES[what])]
        counts, original = counted(new, batch), model_macs(model, batch)
        assert executed_macs(counts, original) == model_macs(new, batch)
        assert executed_macs(counted(dendrofx.script(new), batch), original) == model_macs(new, batch)


@pytest.mark.parametrize("named", NAMED)
def test_a_plan_is_replayed(named: str, tmp_path: Path) -> None:
    model, new = made("by_columns", named)
    new.plan.save(tmp_path / "plan.json")
    plan = Plan.load(tmp_path / "plan.json")
    assert plan == new.plan
    again = dendrofx.transform(model, runs([1] * 9), plan=plan)  # an example without repeats: the plan's groups hold
    assert again.plan == plan
    assert [(n.name, n.target) for n in again.graph.nodes] == [(n.name, n.target) for n in new.graph.nodes]


def test_the_graph_can_be_read() -> None:
    text = dendrofx.graph_text(made("dlrm", "the user")[1])
    assert "relu_1        = relu(user_2)" in text
    joined = " ".join(text.split())
    assert "split_linear([relu_1, item_1], [user_to_rows, rows_to_rows], top.0.weight, .bias)" in joined
    assert "f32[R, 96]" in text
    assert max(map(len, text.splitlines())) <= 120


def test_inputs_that_repeat_alike_are_compared_together() -> None:
    long, short, none = torch.tensor([1, 1, 1, 2, 2, 2]), torch.tensor([1, 1, 2, 3, 3, 4]), torch.arange(6)
    given = {"a": long, "b[:, 0]": long, "c": short, "d": none, "d[:, 1]": none, "e": long}
    counts = ["s0"] * 5 + ["s1"]
    assert grouped(list(given.values()), list(given), counts) == {
        "a with 1 more": ("a", "b[:, 0]"),
        "c": ("c",),
        "e": ("e",),
        "d": ("d",),
    }
    columns = [f"x[:, {i}]" for i in range(9)]
    assert grouped([none] * 9, columns, ["s0"] * 9) == {"9 columns of x": tuple(columns)}
    assert list(grouped([none] * 3, columns[:3], ["s0"] * 3)) == columns[:3]


# ---------------------------------------------------------------------------------------------------- what is left alone


def test_where_rows_mix_a_region_ends_and_the_plan_says_where() -> None:
    def forward(m: Any, user: Any, item: Any) -> Any:
        u = m.user(user)
        return m.item(item) + m.late(u - u.cumsum(0)), m.other(u)

    layers = {name: nn.Linear(WIDTH, WIDTH) for name in ("user", "item", "late", "other")}
    model = Of(forward, **layers)
    new = once(model)
    (region,) = [r for r in new.plan.repeated_rows.regions if r.inputs == "user"]
    assert region.products == 2
    assert "rows mix at %cumsum: it works along axis 'b'" in new.plan.repeated_rows.reason
    for given in BATCHES.values():
        if len(given["user"]):
            assert_same(model, new, given)
    with pytest.raises(
        InputError, match=r"repeated_rows: rows of 'user' are mixed at %cumsum: it works along axis 'b'\. Repeated"
    ):
        once(model, repeated_rows="user")


def test_statistics_of_all_rows_are_read_by_repeated_ones() -> None:
    """A mean over the batch has no rows of its own; what is computed from it and from repeated rows repeats."""

    def forward(m: Any, user: Any, item: Any) -> Any:
        return m.late(m.user(user) * item.mean()) + m.item(item)

    model = Of(forward, **{name: nn.Linear(WIDTH, WIDTH) for name in ("user", "item", "late")})
    new = once(model, repeated_rows="user")
    assert [r.products for r in new.plan.repeated_rows.regions] == [2]
    for given in BATCHES.values():
        assert_same(model, new, given)


def test_a_table_that_all_rows_share_is_no_input_with_rows() -> None:
    model = Of(lambda m, user, item: m.user(user) @ item, user=nn.Linear(WIDTH, 8))
    given = {"user": EXAMPLE["user"], "item": torch.randn(8, 3)}
    for named in (True, "user"):
        new = once(model, given, repeated_rows=named)
        assert list(new.plan.repeated_rows.groups) == ["user"]
        for user in (BATCHES["one user"]["user"], BATCHES["none repeats"]["user"]):
            assert_same(model, new, {"user": user, "item": given["item"]})
    with pytest.raises(
        InputError,
        match=r"'item' is shaped \[8, 3\], which the model does not read row by row along its first axis: name",
    ):
        once(model, given, repeated_rows="item")


REFUSED: dict[str, tuple[Any, str]] = {
    "not there": ("usr", r"repeated_rows: 'usr' is no input of the model that carries rows: it has user, item"),
    "a number": (3, r"repeated_rows is True, or names inputs whose rows repeat, such as 'user' or .*, got 3"),
    "no name": ([], r"repeated_rows is True, or names inputs .*, got \[\]"),
    "a number among names": (["user", 3], r"repeated_rows is True, or names inputs .*, got \['user', 3\]"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_wrong_names_are_refused(kind: str) -> None:
    named, message = REFUSED[kind]
    with pytest.raises(InputError, match=message):
        once(dlrm(), repeated_rows=named)


def test_an_input_of_another_leading_size_is_refused() -> None:
    model = Of(lambda m, user, item: m.item(item) @ m.user(user).t(), user=nn.Linear(8, 8), item=nn.Linear(8, 8))
    given = {"user": torch.randn(5, 8), "item": torch.randn(12, 8)}
    with pytest.raises(
        InputError, match=r"'user' is shaped \[5, 8\], the others have 12 rows: name inputs with one row"
    ):
        once(model, given, repeated_rows="user")


def test_inputs_that_are_never_joined_may_have_other_numbers_of_rows() -> None:
    def forward(m: Any, user: Any, item: Any) -> Any:
        return m.user(user), m.item(item), m.item(item) @ m.user(user).t()

    model = Of(forward, user=nn.Linear(WIDTH, 8), item=nn.Linear(WIDTH, 8))
    new = once(model)
    for u, i in (("one user", "none repeats"), ("all repeats", "items repeat"), ("none repeats", "all repeats")):
        given = {"user": BATCHES[u]["user"][:7], "item": BATCHES[i]["item"]}
        for ready in (new, dendrofx.script(new)):
            assert_same(model, ready, given)


def test_it_needs_inputs() -> None:
    with pytest.raises(InputError, match="repeated_rows is verified on inputs: pass example_inputs= or calibration="):
        dendrofx.transform(dlrm(), repeated_rows=True)


def test_a_model_in_which_nothing_repeats_alone_is_refused() -> None:
    model = Of(lambda m, user, item: m.top(user + item), top=nn.Linear(WIDTH, 4))
    new = once(model, repeated_rows="user")
    assert str(new.plan.repeated_rows) == "repeated rows: refused: no product depends on repeated rows alone"
    assert_same(model, new, EXAMPLE, SAME_GEMM)


def test_inputs_of_other_row_counts_than_the_examples_are_refused_in_the_call() -> None:
    _, new = made("dlrm", "every input")
    for ready in (new, dendrofx.script(new)):
        with pytest.raises(Exception, match=r"(?i)rows|size"):
            ready(user=torch.randn(6, WIDTH), item=torch.randn(5, WIDTH))
