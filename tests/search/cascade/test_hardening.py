"""What broke once: pickles, settings, shared inputs, gates and metrics of the caller's, plans of another budget."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dendrofx
from dendrofx import Budget, CertificateError, InputError, LowRank, Plan, PlanError, Shadow
from tests.asked import asked
from tests.search.cascade.models import Named, batches, classifier, named, rows

FLIP = Budget("flip", 0.05, 0.9)
OPTIONS: dict[str, Any] = {"tune_seconds": 0, "light": [LowRank(4), LowRank(12)]}


def made_of(scope: str = "model", model: nn.Module | None = None, **options: Any) -> Any:
    torch.manual_seed(1)
    given = {"calibration": batches(), "budget": FLIP, "scope": scope, **OPTIONS, **options}
    made = dendrofx.transform(classifier(0.01) if model is None else model.eval(), **asked(**given))
    assert made.plan.certificate is not None, str(made.plan)
    return made


@pytest.mark.parametrize("scope", ["block", "model"])
def test_a_pickled_module_is_the_same(scope: str) -> None:
    made, x = made_of(scope), rows(30)
    again = pickle.loads(pickle.dumps(made))
    assert torch.equal(again(x), made(x))
    assert again.forward_counted(x)[1] == made.forward_counted(x)[1]
    assert again.plan.certificate == made.plan.certificate
    again.plan.certificate.verify(again)


@pytest.mark.parametrize("scope", ["block", "model"])
def test_a_setting_of_the_front_is_a_module_of_its_own_with_its_own_certificate(scope: str, tmp_path: Path) -> None:
    made, x = made_of(scope), rows(30)
    before = made(x)
    for setting in (made.settings[0], made.settings[-1]):
        other = setting.make()
        assert other is not made
        assert other.plan.certificate.thresholds == setting.tolerances
        dendrofx.save(other, tmp_path / "s.pt")
        assert dendrofx.certificate(tmp_path / "s.pt").losses == setting.tested.losses
    assert torch.equal(made(x), before)
    made.plan.certificate.verify(made)


def test_inputs_that_all_samples_share_are_not_cut() -> None:
    made = made_of(model=Named(), calibration=[named(b) for b in batches()])
    seen = Shadow(made, FLIP, every=2)(named(rows(200, 3)))
    assert seen.samples == 200
    assert 60 < seen.picked < 140
    assert made.plan.certificate.n == 500


class Batchwise(nn.Module):
    """A gate that compares rows with each other."""

    def forward(self, x: Tensor) -> Tensor:
        score = x.abs().amax(1)
        return score - score.mean()


class Unscriptable(nn.Module):
    """A gate that TorchScript cannot read."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([max(row.tolist()) * row.new_ones(()) for row in x])


@pytest.mark.parametrize("scope", ["block", "model"])
@pytest.mark.parametrize(("gate", "says"), [(Batchwise(), "among other rows"), (Unscriptable(), "cannot be scripted")])
def test_gates_that_cannot_run_are_refused_by_name(scope: str, gate: nn.Module, says: str) -> None:
    with pytest.raises(InputError, match=rf"gate {type(gate).__name__}\(\).*{says}"):
        made_of(scope, gate=gate)


class Weighted(nn.Module):
    """A gate with a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return -self.weight * (x.topk(2, 1)[0][:, 0] - x.topk(2, 1)[0][:, 1])


def test_the_caller_s_gate_stays_the_caller_s_and_changed_gates_are_noticed() -> None:
    gate = Weighted()
    made, x = made_of(gate=gate), rows(30)
    assert gate.training
    assert gate.weight.requires_grad
    before = made(x)
    with torch.no_grad():
        gate.weight.mul_(-1)
    assert torch.equal(made(x), before)
    made.routed.model.gate.slope = 0.0
    with pytest.raises(CertificateError, match="gates were changed"):
        made.plan.certificate.verify(made)


def test_a_metric_may_write_to_what_it_is_given_and_may_fail_by_name() -> None:
    def cheating(a: Tensor, b: Tensor) -> Tensor:
        b.copy_(a)
        return (a - b).norm(dim=1).clamp(0, 1)

    reference, output = torch.zeros(3, 2), torch.ones(3, 2)
    Budget(cheating, 0.1).losses(reference, output)
    assert torch.equal(output, torch.ones(3, 2))

    def failing(a: Tensor, b: Tensor) -> Tensor:
        raise ValueError("no such thing")

    with pytest.raises(InputError, match=r"metric failing \(yours\) failed on outputs .*: no such thing"):
        Budget(failing, 0.1).losses(reference, output)


def test_outputs_that_are_not_finite_flip() -> None:
    nan, inf = float("nan"), float("inf")
    assert FLIP.losses(torch.tensor([-1.0, 1.0]), torch.tensor([nan, 1.0])).tolist() == [1.0, 0.0]
    assert FLIP.losses(torch.tensor([[3.0, 1.0]]), torch.tensor([[inf, inf]])).tolist() == [1.0]


def test_plans_are_replayed_with_their_own_budget_and_gate(tmp_path: Path) -> None:
    model = classifier(0.01)
    made = dendrofx.transform(model, calibration=batches(), budget=FLIP, scope="model", **asked(**OPTIONS))
    made.plan.save(tmp_path / "p.json")
    plan = Plan.load(tmp_path / "p.json")
    for given, says in (
        ({"budget": Budget("flip", 0.2)}, "the plan's budget is flip at most 5 %"),
        ({"gate": Weighted()}, "the plan says which gates"),
    ):
        with pytest.raises(PlanError, match=says):
            dendrofx.transform(model, calibration=batches(), plan=plan, **asked(**given))


def test_an_audit_is_of_the_certified_budget_and_against_the_original() -> None:
    made = made_of(full=LowRank(13))
    with pytest.raises(InputError, match="pass the budget that it was transformed with"):
        Shadow(made, Budget("deviation", 0.1))
    x = rows(400, 6)
    losses = Shadow(made, FLIP, every=1)(x).losses
    original = made.meta["dendrofx.recipe"].captured
    assert torch.equal(losses, FLIP.losses(original(x), made(x)))
    assert len(losses) == 400
