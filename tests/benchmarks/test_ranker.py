"""The rankers: what of their arithmetic a user's candidates share, counted by code and by hand, and the calls that are cut."""

from dataclasses import replace

import pytest
import torch
from torch import fx, nn

import dendrofx
from benchmarks.cases import CASES, CaseOptions
from benchmarks.cases.distinct import Share, count_rows, share
from benchmarks.cases.ranker import Candidates
from benchmarks.models.ranker import DLRM, EMBEDDING, DCNv2, Sizes, TwoTowers, features, seeded
from dendrofx import InputError
from dendrofx.compare.case import Case
from dendrofx.values.counts import executed_macs
from dendrofx.values.inputs import Inputs
from dendrofx.values.measure import counted, model_macs
from tests.check import OTHER_GEMM

SIZES = Sizes(user=8, item=4, user_ids=3, item_ids=2, width=16, depth=2)
USER, ALL = 8 + 3 * EMBEDDING, 8 + 4 + 5 * EMBEDDING  # columns of DCNv2's x0
MODELS = {"towers": TwoTowers(SIZES), "dlrm": DLRM(SIZES), "dcn": DCNv2(SIZES), "stacked": DCNv2(SIZES, 2, True)}
# By model, the multiply-adds of a row that depend on the user alone, and the others.
COUNTED = {
    "towers": (8 * 512 + 512 * 256 + 256 * 16, 4 * 128 + 128 * 16 + 16 * 8 + 8),
    "dlrm": (
        8 * 512 + 3 * 3 * EMBEDDING + 3 * 16,
        4 * 512 + 512 * 256 + 256 * 64 + 64 * 16 + (36 - 9) * EMBEDDING + (EMBEDDING + 15 - 3) * 16 + 16 * 8 + 8,
    ),
    "dcn": (USER * ALL + USER * 16, (ALL - USER) * (ALL + 16) + 2 * ALL * ALL + 16 * 8 + 8 + ALL),
    "stacked": (USER * ALL, (ALL - USER) * ALL + ALL * ALL + ALL * 16 + 16 * 8 + 8),
}


def candidates(kind: str, rows: int = 24) -> Candidates:
    return Candidates(*features(SIZES, rows, torch.Generator().manual_seed(3), ids=kind != "towers"))


@pytest.mark.parametrize("kind", MODELS)
def test_what_depends_on_the_user_alone_is_counted_as_by_hand(kind: str) -> None:
    given = candidates(kind)
    repeated, others = COUNTED[kind]
    model = seeded(MODELS[kind], 0)
    before = {n: v.clone() for n, v in model.state_dict().items()}
    assert share(model, {**given.user, **given.item}, given.user) == Share(repeated + others, repeated)
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())


def test_the_limit_is_all_rows_over_those_that_are_needed() -> None:
    assert Share(100, 60).limit(rows=10, distinct=1) == 1000 / (400 + 60)
    assert Share(100, 60).limit(rows=10, distinct=10) == Share(100, 0).limit(10, 1) == 1


class Convolved(nn.Module):
    """Has products that are none of two matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv1d(1, 2, 3)

    def forward(self, user: torch.Tensor) -> torch.Tensor:
        return self.layer(user.unsqueeze(1)).sum((1, 2))  # type: ignore[no-any-return]


def test_products_that_are_not_known_are_no_limit() -> None:
    with pytest.raises(InputError, match=r"^36 multiply-adds a row, of which 0 are of products that are known here$"):
        share(Convolved(), {"user": torch.ones(2, 8)}, ["user"])


@pytest.mark.parametrize("kind", MODELS)
def test_rankers_trace_and_script(kind: str) -> None:
    model, (batch,) = seeded(MODELS[kind], 0), candidates(kind).batches(24, "4 users")
    with torch.no_grad():
        wanted = batch.call(model)
        for other in (fx.symbolic_trace(model), torch.jit.freeze(torch.jit.script(model))):
            torch.testing.assert_close(batch.call(other), wanted, **OTHER_GEMM)
    assert wanted.shape == (24, 1)
    assert float(wanted.std()) > 0.02, "answers that are all alike would hide what is wrong"


@pytest.mark.parametrize(("order", "size", "distinct"), [
    ("1 user", 12, [1, 1]), ("4 users", 12, [4, 4]), ("4 users", 3, [3] * 8), ("32 users", 64, [24 * 32 // 64]),
    ("no repeats", 12, [12, 12]), ("random", 24, [1]), ("4 users", 16, [4, 2]),
])  # fmt: skip
def test_calls_have_as_many_users_as_their_order_says(order: str, size: int, distinct: list[int]) -> None:
    given = candidates("dcn")
    batches = given.batches(size, order)
    assert [count_rows([b], given.user)[1] for b in batches] == distinct
    assert sum(b.samples for b in batches) == len(given) == 24
    users = [dict(b.kwargs)["user"][0] for b in batches]
    assert len({u.numpy().tobytes() for u in users}) == len(batches), "no two calls have a user in common"
    items = torch.cat([dict(b.kwargs)["item"] for b in batches])
    assert torch.equal(items, given.item["item"])


def test_a_row_is_new_where_any_repeated_input_differs_from_the_row_before() -> None:
    dense, ids = torch.tensor([[1.0], [1.0], [2.0], [1.0]]), torch.tensor([[1], [2], [2], [2]])
    batch = Inputs.of({"user": dense, "user_ids": ids, "item": torch.arange(4.0)[:, None]})
    assert count_rows([batch, batch], ["user", "user_ids"]) == (8, 8)
    assert count_rows([batch], ["user"]) == (4, 3)
    assert count_rows([batch], ["user_ids"]) == (4, 2)


def case(name: str, **options: int) -> Case:
    return CASES[name](replace(CaseOptions(quick=True), **{"width": 16, "depth": 1, **options}))


@pytest.mark.parametrize("name", ["ranker", "ranker-dlrm", "ranker-dcn"])
def test_cases_are_synthetic_and_say_so(name: str) -> None:
    made = case(name)
    assert (made.name, made.synthetic, made.lossless, made.batch_sizes) == (name, True, True, (512,))
    assert "synthetic weights and features" in made.title
    assert made.limit is not None
    limits = [made.limit.of(made.test.batches(512, order)) for order in made.orders]
    assert limits == sorted(limits, reverse=True)
    assert limits[0] > 1.1
    assert (made.orders[-1], limits[-1]) == ("no repeats", 1)


# By model, multiply-adds of a row that are left out besides: many products of all pairs are read by nothing. 24 of 33 features are
# the user's; of the 33^2 - 24^2 other products those of 8 of the item with all are computed, and of the dense one with 24.
UNREAD = {"ranker": 0, "ranker-dcn": 0, "ranker-dlrm": (33**2 - 24**2 - 8 * 33 - 24) * EMBEDDING}


@pytest.mark.slow
@pytest.mark.parametrize("name", UNREAD)
def test_the_limit_is_reached(name: str) -> None:
    """Counted, by the calls' own counts and by torch's: at one user in all candidates nothing that repeats is left on all rows."""
    made = case(name)
    routed = dendrofx.transform(
        made.model, calibration=made.calibration, repeated_rows=True, budget=0, options=dendrofx.Options(decide=False)
    )
    assert made.limit is not None
    for order in ("1 user", "4 users", "no repeats"):
        batches = made.test.batches(512, order)
        original, executed = model_macs(made.model, batches), model_macs(routed, batches)
        assert executed_macs(counted(routed, batches), original) == executed
        spared = UNREAD[name] * len(made.test) if order != "no repeats" else 0
        assert executed == pytest.approx(original / made.limit.of(batches) - spared, rel=1e-9)
    said = " ".join(str(routed.plan.repeated_rows).split())
    assert "rows of user" in said
    assert "part of" in said
    assert "columns)" in said


def test_sizes_are_options() -> None:
    limits = [
        c.limit.of(c.test.batches(512, "1 user")) for c in (case("ranker-dcn", user=u) for u in (4, 400)) if c.limit
    ]
    assert limits[0] < limits[1], "the more the user has, the more is repeated"
    assert "user 20-512-256, item 10-128, top 384-64-32-1" in case("ranker", user=20, item=10, width=64, depth=2).title
