"""Several outputs: which of them a budget is about, and that it holds for each."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dendrofx
from dendrofx import Budget, InputError, LowRank, Plan, PlanError, Shadow, audit
from dendrofx.compare.bench import Bench
from dendrofx.compare.case import Case
from dendrofx.compare.prepare import Asked
from dendrofx.compare.samples import Rows
from dendrofx.values.covered import Covered, cover, covered_by
from dendrofx.values.inputs import Inputs
from dendrofx.values.measure import deviation, deviations, outputs, worst
from tests.asked import asked
from tests.models import compressible

LIMIT = 0.05
QUICK: dict[str, Any] = {"tune_seconds": 0, "light": LowRank(6)}
NAMES = ("a", "b.0", "b.1", "ids", "loss", "turned")
TENSORS = [
    *(torch.ones(shape) for shape in ([4, 3], [4], [4, 2, 5])), torch.arange(4), torch.tensor(1.0), torch.ones(3, 4),
]  # fmt: skip


class Actor(nn.Module):
    """A small action that is hard to approximate beside a large value that is easy, and what is of no sample."""

    def __init__(self, extra: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.policy, self.critic, self.extra = compressible(noise=0.06), compressible(out=1), extra

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        action, value = 0.1 * self.policy(x), 100 + self.critic(x)
        found = {"action": action, "value": value}
        if self.extra:
            found |= {"loss": action.square().mean(), "best": action.argmax(1), "table": action.t()}
        return found


class Nested(nn.Module):
    """Outputs in outputs, which export returns side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.actor = Actor()

    def forward(self, x: Tensor) -> Any:
        found = self.actor(x)
        return found["value"], (found["action"], [found["value"], found["action"]]), None


def rows(count: int = 2000, seed: int = 9) -> Tensor:
    return torch.randn(count, 64, generator=torch.Generator().manual_seed(seed))


def batches(count: int = 16, size: int = 64) -> list[Tensor]:
    return list(rows(count * size, 1).split(size))


def routed(model: nn.Module | None = None, **options: Any) -> Any:
    given = {"calibration": batches(), "budget": LIMIT, **QUICK, **options}
    return dendrofx.transform((Actor() if model is None else model).eval(), **asked(**given))


@torch.no_grad()
def far(made: nn.Module, model: nn.Module) -> dict[str, float]:
    """On fresh samples, by output."""
    x = rows()
    wanted, got = model(x), made(x)
    return {n: float(deviation(wanted[n], got[n]).mean()) for n in ("action", "value")}


# ------------------------------------------------------------------------------------------------------- which outputs


@pytest.mark.parametrize(("asked", "places"), [
    (None, (0, 1, 2, 4, 5)), ("a", (0,)), (0, (0,)), ("b", (1, 2)), ("b.1", (2,)), (("b.1", 0), (0, 2)), (("a", 0, "a"), (0,)),
])  # fmt: skip
def test_outputs_are_named_by_name_path_or_place(asked: Any, places: tuple[int, ...]) -> None:
    found = cover(NAMES, TENSORS, asked)
    assert found.places == places
    assert sorted((*found.covered, *found.left)) == sorted(NAMES)


@pytest.mark.parametrize("asked", ["c", "ids", 3, 6, -1, ("a", "ids"), "b.2", ""])
def test_other_names_are_quoted_beside_those_that_there_are(asked: Any) -> None:
    with pytest.raises(
        InputError, match=r"is no floating-point output of the model; it has a, b\.0, b\.1, loss, turned"
    ):
        cover(NAMES, TENSORS, asked)
    with pytest.raises(InputError, match="the outputs ids are no floating-point tensors"):
        cover(("ids",), TENSORS[3:4])


@pytest.mark.parametrize(("names", "tensors", "samples", "says"), [
    (NAMES, TENSORS, 4, "output 'loss' is shaped () for 4 samples: a deviation is per sample."
     " Name those that the budget is about: output=('a', 'b.0', 'b.1')"),
    (("h", "y"), [torch.ones(3, 4), torch.ones(4, 1)], 4, "output 'h' is shaped (3, 4) for 4 samples: a deviation is per sample."
     " Name those that the budget is about: output='y'"),
    (("loss",), [torch.tensor(1.0)], 4, "output 'loss' is shaped () for 4 samples: a deviation is per sample; no output of the"
     " model is: return what the budget is about beside it, such as the logits"),
    (("y",), [torch.ones(4, 2)], 1, "output 'y' is shaped (4, 2) for 1 samples: a deviation is per sample; an input that all"
     " samples share needs scope='model', or a place inside the model, as a buffer"),
])  # fmt: skip
def test_what_is_not_per_sample_is_never_taken_for_a_sample(names: Any, tensors: Any, samples: int, says: str) -> None:
    output = dict(zip(names, tensors, strict=True))
    with pytest.raises(InputError) as error:
        cover(names, tensors).pick(output, samples)
    assert str(error.value) == says
    if samples > 1:
        with pytest.raises(InputError):
            cover(names, tensors).rows(output, samples)


def test_a_batch_that_is_one_sample_is_one_row_of_each_output() -> None:
    found = cover(NAMES, TENSORS).rows(TENSORS, 1)
    assert [tuple(t.shape) for t in found] == [(1, 12), (1, 4), (1, 40), (1, 1), (1, 12)]


class Square(nn.Module):
    """Its first output has the size of the batch on both axes where that is 64."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.t() @ x, x


def test_an_axis_that_has_the_size_of_the_batch_by_chance_is_noticed() -> None:
    gm = torch.fx.symbolic_trace(Square())
    with pytest.raises(InputError, match=r"output '0' is shaped \(64, 64\) for 63 samples.*output='1'"):
        covered_by(gm, [Inputs.of(rows(b)) for b in (1, 64)], cover, strict=False)


# --------------------------------------------------------------------------------------------------------- the measure


def test_a_large_output_does_not_hide_a_small_one() -> None:
    action, value = torch.tensor([[0.1, 0.0], [0.0, 0.2]]), torch.full([2, 300], 100.0)
    found = deviations([action, value], [action * torch.tensor([[2.0], [1.0]]), value * 1.01])
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.01], [0.0, 0.01]], dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(worst(found), torch.tensor([1.0, 0.01], dtype=torch.float64), atol=1e-6, rtol=0)


def test_outputs_are_stacked_each_on_its_own() -> None:
    model = Actor().eval()
    action, value = outputs(model, [Inputs.of(b) for b in rows(10).split(4)])
    assert (action.shape, value.shape) == ((10, 8), (10, 1))
    (only,) = outputs(model, [Inputs.of(rows(10))], Covered(("action", "value"), (1,)))
    torch.testing.assert_close(only, value)


# --------------------------------------------------------------------------------------------------------- the budgets


@pytest.fixture(scope="module")
def plain() -> Any:
    return routed()


@pytest.fixture(scope="module")
def certified() -> Any:
    made = routed(Actor(True), budget=Budget("deviation", LIMIT, 0.9), output=["action", "value"])
    assert made.plan.certificate is not None, str(made.plan)
    return made


def test_the_budget_holds_for_each_output(plain: Any) -> None:
    reached = plain.plan.outputs
    assert list(reached) == ["action", "value"]
    assert plain.plan.deviation == max(reached.values()) <= LIMIT
    found = far(plain, Actor().eval())
    assert LIMIT / 20 < found["action"] <= LIMIT, "the budget is used, not avoided"
    assert found["value"] <= LIMIT
    assert "deviation of each output: action at most 0.0" in str(plain.plan)
    assert "not covered" not in str(plain.plan)


def test_a_certified_budget_holds_for_each_output(certified: Any) -> None:
    shown, tested = certified.plan.certificate, certified.settings[-1].tested
    assert list(shown.by_output) == ["action", "value"]
    assert shown.losses == max(shown.by_output.values()) == max(tested.by_output)
    assert shown.p_value == max(Budget("deviation", LIMIT, 0.9).p_value(s, shown.n) for s in tested.by_output)
    assert "in action, the worst of 2 outputs" in shown.sentence
    found = far(certified, Actor().eval())
    assert 0 < found["action"] <= LIMIT
    assert found["value"] <= LIMIT
    assert "not covered: loss, best, table" in str(certified.plan)


def test_a_saved_certificate_says_the_same_of_each_output(certified: Any, tmp_path: Path) -> None:
    dendrofx.save(certified, tmp_path / "m.pt")
    read = dendrofx.certificate(tmp_path / "m.pt")
    assert (read.by_output, read.output) == (certified.plan.certificate.by_output, ("action", "value"))


def test_a_shadow_audit_is_of_each_output(certified: Any) -> None:
    budget = Budget("deviation", LIMIT, 0.9, output=("action", "value"))
    shadow = Shadow(certified, budget, every=2)
    losses = torch.cat([shadow(part).losses for part in (*rows(600).split(200), rows(1))])
    assert losses.shape[1] == 2
    assert audit(losses, certified.plan.certificate).answer != "broken"
    losses[:, 0] = 1.0
    assert audit(losses, certified.plan.certificate).answer == "broken"


def test_what_is_left_out_does_not_count() -> None:
    made = routed(Actor(True), output="value")
    assert (list(made.plan.outputs), made.plan.not_covered) == (["value"], ["action", "loss", "best", "table"])
    assert "not covered: action, loss, best, table" in str(made.plan)
    assert far(made, Actor().eval())["action"] > LIMIT, "or the name would make no difference"


def test_a_loss_is_refused_with_the_next_step_unless_nothing_is_measured() -> None:
    says = r"output 'loss' is shaped \(\) for 64 samples: .*: output=\('action', 'value'\)$"
    for options in ({}, {"budget": Budget("deviation", LIMIT)}):
        with pytest.raises(InputError, match=says):
            routed(Actor(True), **options)
    for options in ({"budget": 0}, {"calibration": None}):
        assert routed(Actor(True), **options).plan.outputs == {}


@pytest.mark.parametrize(("options", "says"), [
    ({"budget": Budget("deviation", LIMIT, output="value"), "output": "action"}, "output='action', but the budget is deviation of"),
    ({"output": "acton"}, "output='acton' is no floating-point output of the model; it has action, value"),
    ({"output": True}, "output names outputs, such as 'logits', 0 or"),
])  # fmt: skip
def test_outputs_that_cannot_be_meant_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as error:
        routed(**options)
    assert says in str(error.value)


@pytest.mark.parametrize("options", [{"output": "1.0"}, {"budget": Budget("deviation", LIMIT, 0.9), "output": "1"}])
def test_nested_outputs_keep_the_names_that_the_model_gives_them(options: dict[str, Any]) -> None:
    made = routed(Nested(), **options)
    named = ["1.0"] if options["output"] == "1.0" else ["1.0", "1.1.0", "1.1.1"]
    assert list(made.plan.outputs) == named
    assert made.plan.not_covered[0] == "0"
    if (shown := made.plan.certificate) is not None:
        assert Shadow(made, Budget("deviation", LIMIT, 0.9, "1"), every=1)(rows(50)).losses.shape == (50, 3)
        assert list(shown.by_output) == named


def test_a_cascade_lists_what_its_decision_is_not() -> None:
    made = routed(scope="model", budget=Budget("deviation", 0.2, 0.9), output="action")
    assert (made.plan.outputs, made.plan.not_covered) == ({"action": None}, ["value"])
    assert "not covered: value" in str(made.plan)


# ------------------------------------------------------------------------------------------------ plans and benchmarks


@pytest.mark.slow
def test_plans_keep_their_outputs(tmp_path: Path) -> None:
    model = Actor(True)
    made = routed(model, output=("action", "value"))
    made.plan.save(tmp_path / "p.json")
    plan = Plan.load(tmp_path / "p.json")
    assert plan == made.plan
    for options in ({"output": ["value", 0]}, {"redecide": True}):
        again = routed(model, budget=None, light=None, plan=plan, **options)
        assert (list(again.plan.outputs), again.plan.not_covered) == (list(plan.outputs), ["loss", "best", "table"])
    with pytest.raises(PlanError, match="the plan's budget is about action, value, not value: leave out output="):
        routed(model, budget=None, light=None, plan=plan, output="value")


def test_many_outputs_fit_a_line() -> None:
    names = [f"hidden.{i}" for i in range(25)]
    plan = Plan([], 0.1, 0.1, (1, 1, 1, 1), outputs={n: i / 1000 for i, n in enumerate(names)}, not_covered=names)
    covered, left = str(plan).splitlines()[-2:]
    assert covered.startswith("deviation of each output: hidden.24 at most 0.024, hidden.23")
    assert covered.endswith(" more")
    assert left.startswith("not covered: hidden.0, hidden.1")
    assert all(len(line) <= 100 for line in (covered, left))


def test_the_benchmarks_column_is_of_the_output_that_deviates_most(plain: Any) -> None:
    case = Case("actor", "", Actor().eval(), batches(), Rows(rows(256)), classes=False)
    prepared: Any = SimpleNamespace(case=case, plan=plain.plan, asked=Asked())
    bench = Bench(prepared, 64, 0.0, 0)
    quality = bench.quality(plain, counted=True)
    by_output = deviations(bench.reference, outputs(plain, bench.batches)).mean(0)
    assert (quality.mean, quality.output) == (pytest.approx(float(by_output[0]), rel=1e-12), "action")
    assert quality.mean > 2 * float(by_output[1])
    prepared.plan = Plan([], LIMIT, outputs={"value": 0.0}, not_covered=["action"])
    alone = Bench(prepared, 64, 0.0, 0).quality(plain, counted=True)
    assert (alone.mean, alone.output) == (pytest.approx(float(by_output[1]), rel=1e-12), "")
