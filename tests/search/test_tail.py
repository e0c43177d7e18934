"""The tail beside a budget: what no calibration sample may deviate by, on random models, in plans, and under a certificate."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dendrofx
from dendrofx import Budget, InputError, LearnedGate, LowRank, Plan
from dendrofx.gates.form import ModelRows
from dendrofx.guarantee.metrics import expected_beyond, mean_of_tail
from dendrofx.plan.tail import TailPlan
from dendrofx.values.calibration import Calibration
from dendrofx.values.measure import deviation, deviations, outputs
from tests.asked import asked
from tests.models import compressible
from tests.search.cascade.models import batches, classifier

SEEDS = 4


class Drawn(nn.Module):
    """A random graph: blocks in a row, some with a way around them, and one output or two."""

    def __init__(self, draw: random.Random) -> None:
        super().__init__()
        noises = [draw.choice([0.01, 0.05, 0.2]) for _ in range(draw.randint(1, 3))]
        self.blocks = nn.ModuleList([compressible(32, 96, 32, noise=noise) for noise in noises])
        self.around = [draw.random() < 0.5 for _ in noises]
        self.head, self.two = compressible(32, 64, 6, noise=0.1), draw.random() < 0.5

    def forward(self, x: Tensor) -> Any:
        for block, around in zip(self.blocks, self.around, strict=True):
            x = x + block(x) if around else block(x)
        return (self.head(x), x) if self.two else self.head(x)


def test_no_sample_that_tolerances_were_set_on_deviates_by_more_on_random_graphs() -> None:
    exceeded = routed = 0
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        draw = random.Random(seed)
        model, most = Drawn(draw).eval(), draw.choice([0.05, 0.1, 0.2])
        rows = torch.randn(400, 32) * torch.rand(400, 1)
        tune = Calibration.read([rows], seed).tune
        rare: dict[str, Any] = {"tune_seconds": 0, "decide": False, "seed": seed}
        options = asked(calibration=[rows], budget=0.1, light=LowRank(8, "input"), gate=LearnedGate(), **rare)
        without = dendrofx.transform(model, **options)
        made = dendrofx.transform(model, **options, max_sample_deviation=most)
        largest = [float(deviations(outputs(model, tune), outputs(m, tune)).max()) for m in (without, made)]
        assert largest[1] <= most, f"seed {seed}"
        tail = made.plan.tail
        assert tail is not None
        assert tail.searched is None or (tail.searched, tail.samples) == (pytest.approx(largest[1], rel=1e-3), 80)
        exceeded += largest[0] > most
        routed += largest[1] > most / 10
    assert exceeded >= SEEDS // 2, "without the limit samples exceed it"
    assert routed >= SEEDS // 2, "the limit is used, not avoided"


@pytest.mark.parametrize("scope", ["block", "model"])
def test_a_certified_budget_with_a_tail_keeps_both_on_its_samples_and_says_so(scope: str) -> None:
    torch.manual_seed(0)
    model = classifier(0.05)
    given = {"light": [LowRank(4), LowRank(12)], "calibration": batches(), "budget": Budget("flip", 0.1, 0.9)}
    options = asked(tune_seconds=0, scope=scope, **given)
    free, made = (dendrofx.transform(model, **options, max_sample_deviation=most) for most in (None, 0.3))
    assert free.plan.tail is None
    assert made.plan.certificate is not None
    assert 0 < made.plan.certificate.n == made.plan.tail.test_samples
    data = Calibration.read(batches(), 0, test=True)

    def largest(module: nn.Module, *sets: Any) -> float:
        return max(float(deviations(outputs(model, s), outputs(module, s)).max()) for s in sets)

    assert largest(free, data.choose, data.tune, data.test) > 0.3
    searched, tested = largest(made, data.choose, data.tune), largest(made, data.test)
    assert 0 < max(searched, tested) <= 0.3
    assert (made.plan.tail.searched, made.plan.tail.tested) == pytest.approx((searched, tested), rel=1e-3)
    assert f"largest deviation of a sample: {tested:.3g} on 500 test samples" in str(made.plan)
    assert all(0 < s.largest[0] <= 0.3 for s in made.settings)
    assert made.settings[0].make().plan.tail.searched == made.settings[0].largest[0]


def test_a_plan_keeps_its_tail_read_replayed_and_decided_anew(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, rows = classifier(0.05), batches()
    given: dict[str, Any] = {"calibration": rows, "light": LowRank(12)}
    made = dendrofx.transform(model, budget=0.2, max_sample_deviation=0.4, **given, **asked(tune_seconds=0))
    assert made.plan.routed
    assert f"{made.plan.tail.searched:.3g} on 200 calibration samples (at most 0.4 wanted)" in str(made.plan)
    made.plan.save(tmp_path / "plan.json")
    plan = Plan.load(tmp_path / "plan.json")
    assert plan == made.plan
    assert dendrofx.transform(model, plan=plan, **given).plan == plan
    anew = dendrofx.transform(model, plan=plan, **given, **asked(redecide=True, tune_seconds=0))
    assert anew.plan.tail == plan.tail
    with pytest.raises(InputError, match=r"^max_sample_deviation=0\.1, but the plan says 0\.4: leave it out$"):
        dendrofx.transform(model, plan=plan, max_sample_deviation=0.1, **given)


def test_a_limit_that_nothing_keeps_leaves_the_original_and_stays_in_the_plan() -> None:
    torch.manual_seed(0)
    model, given = classifier(0.05), {"calibration": batches(), "light": LowRank(4), **asked(tune_seconds=0)}
    made = dendrofx.transform(model, budget=0.2, max_sample_deviation=1e-6, **given)
    assert not made.plan.routed
    assert made.plan.tail == TailPlan(1e-6)
    assert "largest deviation" not in str(made.plan)
    assert torch.equal(made(batches()[0]), model(batches()[0]))


def test_a_tail_on_test_samples_above_what_was_wanted_is_said() -> None:
    """Of a setting that the caller makes."""
    assert str(TailPlan(0.2, 0.11, 240, 0.231, 300)) == (
        "largest deviation of a sample: 0.231 on 300 test samples, above the 0.2 wanted; 0.11 on 240 that it was searched on"
    )


def test_where_choosing_starts_for_a_budget_on_the_tail() -> None:
    """The mean of an exponential tail: of a thousand such samples about as many lie beyond."""
    assert mean_of_tail(0.05, 0.9) == 0.05
    for share in (0.01, 0.05, 0.3):
        mean = Budget("exceeds(0.05)", share).deviation
        drawn = mean * torch.empty(20_000).exponential_(generator=torch.Generator().manual_seed(0))
        assert float((drawn > 0.05).double().mean()) == pytest.approx(share, rel=0.15)


def test_samples_that_come_near_a_limit_count_as_risk() -> None:
    far = torch.tensor([[0.0], [0.01], [0.05], [0.5], [torch.inf]], dtype=torch.float64)
    near = expected_beyond(far, 0.05)[:, 0].tolist()
    assert near == sorted(near)
    assert [near[0], near[2], near[4]] == [0.0, pytest.approx(0.5), 1.0]


@pytest.mark.parametrize("lost", [0.0, 0.02])
def test_the_learned_gate_of_a_cascade_is_fitted_to_deviations_where_losses_are_0_or_1(lost: float) -> None:
    """Even where no sample was lost: the log loss would say the same of all of them."""
    light = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    full = light + 0.1 * light[:, :1].exp() * light.norm(dim=1, keepdim=True) / 2
    far = deviation(full, light)
    losses = (far > far.quantile(1 - lost)).double()
    score = LearnedGate().fit(ModelRows(light, full, losses, False))(light)
    order = torch.stack([score.double().argsort().argsort(), far.argsort().argsort()]).double()
    assert float(torch.corrcoef(order)[0, 1]) > 0.9
