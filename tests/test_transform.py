"""`transform` from end to end: what it returns, how it is called, what its plan says, and that it keeps its promises."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import dendrofx
from dendrofx.request import Options
from dendrofx.transform import transform
from dendrofx.values.inputs import Inputs
from dendrofx.values.measure import deviation, deviations, outputs, worst
from tests.models import NoBlock, Residual, Shared, compressible

BUDGET = 0.02
# One row in another batch: another GEMM, whose last bits differ, carried through three layers.
OTHER_GEMM = {"rtol": 1e-5, "atol": 1e-5}


class Named(nn.Module):
    """Two inputs, the second with a default."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = compressible()

    def forward(self, x: Tensor, shift: float = 0.0) -> Tensor:
        return self.mlp(x) + shift  # type: ignore[no-any-return]


class Block(nn.Module):
    """A transformer's MLP block on f32[N, T, 64]."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mlp = nn.LayerNorm(64), compressible(out=64, noise=0.0)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.norm(x))  # type: ignore[no-any-return]


class Chain(nn.Module):
    """Two sites, behind a LayerNorm each."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = compressible(out=64), nn.LayerNorm(64), compressible()

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.norm(self.first(x)))  # type: ignore[no-any-return]


@pytest.fixture
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def rows(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 64, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def far(model: nn.Module, routed: nn.Module, x: Tensor) -> Tensor:
    return worst(deviations(*(outputs(m, [Inputs.of(x)]) for m in (model, routed))))


# ------------------------------------------------------------------------------------------------ with calibration


def test_a_compressible_model_is_routed_within_the_budget_on_fresh_rows() -> None:
    model = compressible()
    routed = transform(model, calibration=[rows(600)], budget=BUDGET, options=Options(tune_seconds=0))
    (site,) = routed.plan.sites
    assert site.status == "routed"
    assert site.activity is not None
    assert site.activity < 0.2
    assert 0 < float(far(model, routed, rows(1000, 1)).mean()) <= BUDGET
    assert routed.plan.samples == (240, 120, 120, 120)
    assert routed.plan.deviation is not None
    assert routed.plan.deviation <= BUDGET


def test_plan_entries_say_everything() -> None:
    routed = transform(compressible(), calibration=[rows(600)], budget=BUDGET, options=Options(tune_seconds=0))
    (site,) = routed.plan.sites
    (tolerance,) = dendrofx.tolerances(routed).values()
    assert (site.name, site.status, site.shape) == ("0..2", "routed", "64 -> 256 -> 8")
    assert isinstance(site.light, dendrofx.LightForm)
    assert isinstance(site.gate, dendrofx.GateForm)
    assert site.full is None
    assert site.tolerance == float(tolerance) > 0
    assert "of the block's multiply-adds" in site.reason
    for word in (site.name, str(site.light), str(site.gate), "routed", "budget 0.02"):
        assert word in str(routed.plan)


def test_the_input_model_is_not_modified() -> None:
    model = Residual(width=64, hidden=256).eval()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    grads = [p.requires_grad for p in model.parameters()]
    routed = transform(model, calibration=[rows(400)], options=Options(decide=False))
    with torch.no_grad():
        next(iter(routed.buffers())).zero_()
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == grads == [True] * 8
    ours = {p.data_ptr() for p in model.parameters()}
    assert not ours & {t.data_ptr() for t in [*routed.parameters(), *routed.buffers()]}


def test_what_comes_back_is_a_graph_module_called_like_the_model() -> None:
    model = Named().eval()
    routed = transform(
        model, calibration=[{"x": rows(600), "shift": 2.0}], budget=BUDGET, options=Options(tune_seconds=0)
    )
    assert isinstance(routed, fx.GraphModule)
    assert isinstance(routed, dendrofx.RoutedModule)
    assert not routed.training
    assert routed.plan.routed
    x = rows(50, 1)
    with torch.no_grad():
        given = [routed(x, 2.0), routed(x, shift=2.0), routed(shift=2.0, x=x)]
        assert all(torch.equal(given[0], g) for g in given)
        assert torch.equal(routed.forward(x, 2.0), given[0])
        assert float(deviation(model(x, 2.0), given[0]).mean()) <= BUDGET


@pytest.mark.parametrize("form", ["tensor", "tuple", "dict"])
def test_calibration_of_every_form_gives_the_same_plan(form: str) -> None:
    torch.manual_seed(0)
    model, x = Named().eval(), rows(600)
    batch: Any = {"tensor": x, "tuple": (x, 0.0), "dict": {"x": x}}[form]
    torch.manual_seed(0)
    assert str(transform(model, calibration=[batch], options=Options(tune_seconds=0)).plan) == str(
        transform(Named().eval(), calibration=x, options=Options(tune_seconds=0)).plan
    )


def test_the_printed_graph_names_gate_light_and_full_of_every_routed_site() -> None:
    routed = transform(Chain().eval(), calibration=[rows(600)], options=Options(decide=False))
    assert [s.name for s in routed.plan.routed] == ["first.0..2", "second.0..2"]
    for inside, name in (("first_0_2", "first.0..2"), ("second_0_2", "second.0..2")):
        for part in ("gate", "light", "full"):
            assert f"routed.{inside}.{part}" in str(routed.graph)
            assert f" {name}.{part}(" in dendrofx.graph_text(routed)


@pytest.mark.parametrize("decide", [True, False])
def test_every_candidate_is_listed_once(decide: bool) -> None:
    model = Residual(width=64, hidden=256).eval()
    light = dendrofx.LowRank(2)  # the ladder depends on the CPU
    plan = transform(model, calibration=[rows(400)], light=light, options=Options(decide=decide, tune_seconds=0)).plan
    assert [s.name for s in plan.sites] == ["stem", "fc1..fc2", "head", "stem..fc1"]
    assert [s.status for s in plan.sites] == (["refused"] * 4 if decide else ["routed"] * 3 + ["refused"])
    assert all(s.reason for s in plan.sites)
    assert all((s.light is None) == (s.status == "refused") for s in plan.sites)
    assert "second user" in plan.sites[-1].reason
    assert "%relu" in plan.sites[-1].reason


# ----------------------------------------------------------------------------------------------------- refusals


def test_where_nothing_pays_the_captured_model_comes_back_with_its_reasons() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8)).eval()
    routed = transform(model, calibration=[rows(600)], options=Options(tune_seconds=0))
    assert isinstance(routed, dendrofx.RoutedModule)
    assert torch.equal(routed(rows(99, 1)), model(rows(99, 1)))
    (site,) = routed.plan.sites
    assert site.status == "refused"
    assert site.reason.startswith("no light form pays: the cheapest, ")
    assert "% of the block within the budget on calibration rows" in site.reason
    assert [n.op for n in routed.graph.nodes] == ["placeholder", *["call_module"] * 3, "output"]
    assert routed.forward_counted(rows(9))[1] == {}


def test_decide_false_routes_all_the_same_within_the_budget() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8)).eval()
    routed = transform(model, calibration=[rows(600)], options=Options(decide=False))
    (site,) = routed.plan.sites
    assert site.status == "routed"
    assert site.reason.endswith("routed without a decision (decide=False)")
    assert float(far(model, routed, rows(1000, 1)).mean()) <= 0.01


def test_a_model_without_linears() -> None:
    routed = transform(NoBlock().eval(), calibration=[rows(100)], options=Options(tune_seconds=0))
    assert routed.plan.sites == []
    assert torch.equal(routed(rows(5)), NoBlock()(rows(5)))


@pytest.mark.parametrize(
    "selector",
    ["fc1..fc2", "fc*", ["fc1"], lambda s: s.macs > 5000],
    ids=["name", "pattern", "module", "predicate"],
)
def test_only_selected_sites_are_routed(selector: Any) -> None:
    plan = transform(
        Residual(width=64, hidden=256).eval(), calibration=[rows(400)], sites=selector, options=Options(decide=False)
    ).plan
    assert [s.name for s in plan.routed] == ["fc1..fc2"]
    assert {s.name: s.reason for s in plan.sites}["stem"] == "not selected by sites= (%stem)"
    assert sorted(s.name for s in plan.sites) == ["fc1..fc2", "head", "stem", "stem..fc1"]


# ------------------------------------------------------------------------------------------------------- no data


@pytest.mark.parametrize(("budget", "noise"), [(0.01, 1e-4), (0.2, 1e-3)])
def test_without_data_every_row_stays_within_the_bound(budget: float, noise: float) -> None:
    model = compressible(noise=noise)
    routed = transform(model, budget=budget)
    (site,) = routed.plan.sites
    assert (site.status, str(site.gate), site.activity, site.skill) == ("routed", "ResidualGate()", None, None)
    assert site.tolerance == pytest.approx(budget, rel=1e-6)
    x = torch.cat([rows(2000), 100 * rows(200, 1), 1e-3 * rows(200, 2), torch.zeros(3, 64)])
    error = far(model, routed, x)
    assert float(error.max()) <= budget
    counts = routed.forward_counted(x)[1]["0..2"]
    assert 0 < counts["hard_rows"] < counts["rows"]


# --------------------------------------------------------------------------------------------------- other models


def test_a_model_that_is_one_linear_is_a_chain_of_one() -> None:
    model = nn.Linear(64, 64).eval()
    plan = transform(model, calibration=[rows(400)], options=Options(decide=False)).plan
    assert [(s.status, s.shape) for s in plan.sites] == [("routed", "64 -> 64")], plan.sites


def test_a_module_called_twice_is_two_sites() -> None:
    routed = transform(Shared(64).eval(), calibration=[rows(400)], options=Options(decide=False))
    assert [s.name for s in routed.plan.routed] == ["fc", "fc#2"]
    assert len(dendrofx.tolerances(routed)) == 2


def test_tokens_are_rows() -> None:
    model = Block().eval()
    x = torch.randn(200, 6, 64)
    routed = transform(model, calibration=[x], budget=BUDGET, options=Options(tune_seconds=0))
    assert [s.name for s in routed.plan.routed] == ["mlp.0..2"]
    fresh = torch.randn(300, 6, 64)
    assert routed(fresh).shape == (300, 6, 64)
    assert float(far(model, routed, fresh).mean()) <= BUDGET
    assert routed.forward_counted(fresh)[1]["mlp.0..2"]["rows"] == 1800


# ---------------------------------------------------------------------------------------------------- determinism


@pytest.mark.slow
def test_one_seed_one_module() -> None:
    torch.manual_seed(0)
    model = Chain().eval()
    torch.manual_seed(1)
    first = transform(model, calibration=[rows(600)], options=Options(seed=3, tune_seconds=0))
    torch.manual_seed(2)
    again = transform(model, calibration=[rows(600)], options=Options(seed=3, tune_seconds=0))
    assert first.plan.routed
    assert str(first.plan) == str(again.plan)
    a, b = first.state_dict(), again.state_dict()
    assert list(a) == list(b)
    assert all(torch.equal(a[n], b[n]) for n in a)
    other = transform(model, calibration=[rows(600)], options=Options(seed=4, tune_seconds=0))
    assert dendrofx.tolerances(other) != dendrofx.tolerances(first)


@pytest.mark.slow
def test_the_plan_is_the_same_on_two_threads(two_threads: None) -> None:
    model = Chain().eval()
    on_two = transform(model, calibration=[rows(300)], options=Options(tune_seconds=0)).plan
    torch.set_num_threads(1)
    assert on_two.routed
    assert str(transform(model, calibration=[rows(300)], options=Options(tune_seconds=0)).plan) == str(on_two)
