"""`transform(scope="model")` from end to end: routes, outputs, certificates, refusals."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import dendrofx
from dendrofx import Budget, InputError, LearnedGate, LowRank, MarginGate, Prepacked, Pruned
from dendrofx.search.cascade import search
from dendrofx.search.verify import judge
from tests.asked import asked
from tests.check import OTHER_GEMM
from tests.search.cascade.models import Binary, Mixing, Named, Pooled, batches, classifier, named, padded, rows

FLIP = Budget("flip", 0.02, 0.9)
OPTIONS = {"scope": "model", "tune_seconds": 0, "light": [LowRank(4), LowRank(12)]}


def cascade(model: Any = None, calibration: Any = None, budget: Any = FLIP, **options: Any) -> Any:
    """A cascade that is certified, or the test fails."""
    made = dendrofx.transform(
        classifier() if model is None else model.eval(),
        calibration=batches() if calibration is None else calibration,
        budget=budget,
        **asked(**{**OPTIONS, **options}),
    )
    assert made.plan.certificate is not None, str(made.plan)
    return made


def tolerance(module: Any, value: Any) -> None:
    dendrofx.set_tolerances(module, {"model": value})


def test_it_is_certified_and_keeps_the_budget_on_other_samples() -> None:
    """Wrong in one of a thousand draws at most; this is one draw, by the test's own seed."""
    model, budget = classifier(), replace(FLIP, confidence=0.999)
    made = cascade(model, budget=budget)
    x = rows(4000, 9)
    flips = (model(x).argmax(1) != made(x).argmax(1)).double().mean()
    assert float(flips) <= FLIP.limit
    shown = made.plan.certificate
    assert (shown.metric, shown.alpha, shown.delta, shown.n) == ("flip", 0.02, 0.001, 500)
    assert shown.p_value == pytest.approx(dendrofx.guarantee.binomial_p(shown.losses, shown.n, 0.02))
    assert shown.p_value <= 0.001


def test_tolerance_0_is_the_original_and_a_large_one_the_light_model() -> None:
    model, x = classifier(), rows(64, 3)
    made = cascade(model)
    _, counts = made.forward_counted(x)
    assert 0 < counts["model"]["hard_rows"] < 64
    tolerance(made, 0.0)
    assert torch.equal(made(x), model(x))
    tolerance(made, float("inf"))
    light = made(x)
    assert made.forward_counted(x)[1]["model"]["hard_rows"] == 0
    assert not torch.allclose(light, model(x))


def test_samples_in_doubt_get_the_original_s_outputs_and_the_others_keep_theirs() -> None:
    model, x = classifier(), rows(64, 3)
    made = cascade(model)
    output = made(x)
    tolerance_now = float(dendrofx.tolerances(made)["model"])
    tolerance(made, float("inf"))
    light = made(x)
    tolerance(made, tolerance_now)
    kept = (output == light).all(1)
    torch.testing.assert_close(output[~kept], model(x)[~kept], **OTHER_GEMM)
    assert int((~kept).sum()) == made.forward_counted(x)[1]["model"]["hard_rows"]


def test_a_sample_s_route_does_not_depend_on_its_batch() -> None:
    made, x = cascade(), rows(40, 4)
    whole = made(x)
    alone = torch.cat([made(row[None]) for row in x])
    torch.testing.assert_close(whole, alone, **OTHER_GEMM)


@pytest.mark.parametrize("freeze", [False, True])
def test_scripted_it_computes_and_counts_the_same(freeze: Any) -> None:
    made, x = cascade(), rows(50, 5)
    scripted = dendrofx.script(made, freeze=freeze)
    for part in (x, x[:1], x[:0]):
        for _ in range(3):
            assert torch.equal(scripted(part), made(part))
        assert scripted.forward_counted(part)[1] == made.forward_counted(part)[1]


def test_dicts_shared_inputs_and_a_named_output() -> None:
    model = Named().eval()
    made = cascade(model, [named(b) for b in batches()])
    inputs = named(rows(30, 6))
    assert list(made(**inputs)) == ["hidden", "logits"]
    tolerance(made, 0.0)
    assert all(torch.equal(made(**inputs)[k], model(**inputs)[k]) for k in ("hidden", "logits"))
    scripted = dendrofx.script(made)
    assert torch.equal(scripted(**inputs)["logits"], made(**inputs)["logits"])


def test_one_logit() -> None:
    model = Binary().eval()
    made = cascade(model)
    x = rows(2000, 7)
    assert float(((model(x) > 0) != (made(x) > 0)).double().mean()) <= FLIP.limit


@pytest.mark.parametrize(
    "budget", [Budget("cosine", 0.05), Budget("deviation", 0.3), Budget(lambda a, b: (a - b).norm(dim=1) / 20, 0.2)]
)
def test_budgets_of_distances_take_a_learned_gate(budget: Any) -> None:
    budget = replace(budget, confidence=0.9)
    made = cascade(budget=budget)
    assert isinstance(made.plan.cascade.gate, LearnedGate)


def test_dead_rows_in_both_models() -> None:
    torch.manual_seed(0)
    model = Pooled().eval()
    made = cascade(model, [padded(40, seed) for seed in range(24)], dead_rows="mask")
    assert made.plan.dead_rows.status == "live"
    inputs = padded(30, 99)
    _, counts = made.forward_counted(**inputs)
    assert counts["light/dead rows"]["live_rows"] == int(inputs["mask"].sum())
    tolerance(made, 0.0)
    torch.testing.assert_close(made(**inputs), model(**inputs), **OTHER_GEMM)


def test_a_named_full_form_runs_instead_of_the_original() -> None:
    made = cascade(full=Pruned(energy=1.0))
    assert "the original never runs" in str(made.plan)
    assert "Pruned(energy=1.0" in str(made.plan)
    model, x = classifier(), rows(20, 8)
    exact = cascade(model, full=Prepacked())
    tolerance(exact, 0.0)
    torch.testing.assert_close(exact(x), model(x), **OTHER_GEMM)


def test_the_front_is_verified_and_ordered() -> None:
    made = cascade()
    costs, risks = [s.cost for s in made.settings], [s.risk for s in made.settings]
    assert len(made.settings) > 1
    assert costs == sorted(costs, reverse=True)
    assert risks == sorted(risks)
    assert all(s.tested.p_value <= 0.1 for s in made.settings)
    assert made.plan.cascade.cost == min(costs)
    safest = made.settings[0].make()
    assert float(dendrofx.tolerances(safest)["model"]) < float(dendrofx.tolerances(made)["model"])


def test_the_test_samples_serve_nothing_else() -> None:
    """Other test samples: the same path; the same light models and gates."""
    model = classifier()
    first = cascade(model)
    data = batches()
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0)).tolist()
    tested = order[10:]
    for i in tested:
        data[i] = rows(50, 100 + i)
    second = cascade(model, data)
    shared = min(len(first.settings), len(second.settings))
    assert [s.risk for s in first.settings[:shared]] == [s.risk for s in second.settings[:shared]]
    assert first.plan.certificate.inputs != second.plan.certificate.inputs


def test_too_few_samples_return_the_original_and_say_how_many() -> None:
    model = classifier()
    made = dendrofx.transform(model, calibration=batches(12, 10), budget=Budget("flip", 0.01), **asked(**OPTIONS))
    assert made.plan.certificate is None
    assert "can never show flip at most 1 %, 95 % confidence, it takes 299 at zero loss" in made.plan.refusal
    assert torch.equal(made(rows(30)), model(rows(30)))
    assert made.settings == []
    assert "not certified" in str(made.plan)


def test_samples_that_read_each_other_are_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"samples do not depend on each other: %mean"):
        dendrofx.transform(Mixing().eval(), calibration=batches(), budget=FLIP, **asked(**OPTIONS))


def test_constant_outputs_and_copies() -> None:
    constant = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5)).eval()
    nn.init.zeros_(constant[2].weight)
    with pytest.raises(InputError, match="the same output"):
        dendrofx.transform(constant, calibration=batches(), budget=FLIP, **asked(**OPTIONS))
    copies = [rows(50, 1) for _ in range(20)]
    with pytest.warns(UserWarning, match="are copies of others"):
        dendrofx.transform(classifier(), calibration=copies, budget=FLIP, **asked(**OPTIONS))


class Doubt(nn.Module):
    """A user's gate: less margin, more doubt."""

    def forward(self, output: torch.Tensor) -> torch.Tensor:
        top = output.topk(2, 1)[0]
        return top[:, 1] - top[:, 0]


def test_a_user_s_gate_and_a_named_one() -> None:
    made = cascade(gate=Doubt())
    assert str(made.plan.cascade.gate) == "Doubt()"
    x = rows(30, 2)
    assert torch.equal(dendrofx.script(made)(x), made(x))
    assert isinstance(cascade(gate=MarginGate()).plan.cascade.gate, MarginGate)
    assert isinstance(cascade(gate=LearnedGate()).plan.cascade.gate, LearnedGate)
    with pytest.raises(InputError, match="is a gate of blocks"):
        cascade(gate=dendrofx.EnergyGate())


def test_margins_order_samples_better_than_chance() -> None:
    plan = cascade(gate=MarginGate()).plan.cascade
    assert plan.margin_skill > 0.5


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"scope": "region"}, "scope must be 'auto', 'block' or 'model'"),
        ({"scope": "model", "budget": None}, "scope='model' needs a budget to certify"),
        ({"budget": "flip"}, "a budget is a mean deviation"),
        ({"budget": FLIP, "max_deviation": 0.01}, "are two budgets"),
        ({"budget": FLIP, "calibration": None}, "pass calibration="),
        ({"gate": "MarginGate"}, "gate must be a gate form"),
    ],
)
def test_bad_options_are_quoted(options: Any, says: Any) -> None:
    with pytest.raises(InputError, match=says):
        dendrofx.transform(classifier(), **asked(**{"calibration": batches(), "budget": FLIP, **OPTIONS, **options}))


def test_ctrl_c_keeps_what_was_verified_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    original = search.tested

    def interrupted(setting: Any, budget: Any) -> Any:
        seen.append(setting)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return original(setting, budget)

    monkeypatch.setattr("dendrofx.search.decide_models.tested", interrupted)
    monkeypatch.setattr("dendrofx.plan.times.ModelTimes.wins", lambda *_: True)  # whatever this machine measures
    torch.manual_seed(1)
    options = {**OPTIONS, "tune_seconds": 5, "min_speedup": 0.01}
    made = dendrofx.transform(
        classifier(0.01), calibration=batches(), budget=Budget("flip", 0.05, 0.9), **asked(**options)
    )
    assert len(made.settings) == 1
    assert made.plan.certificate.steps == 1


@pytest.mark.slow
def test_ctrl_c_during_the_last_race_does_not_end_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    accepted: list[bool] = []
    monkeypatch.setattr(
        "dendrofx.search.decide_models.tested", lambda s, b: accepted.append(True) or search.tested(s, b)
    )

    def interrupted(*args: Any) -> Any:
        if accepted:
            raise KeyboardInterrupt
        return judge(*args)

    monkeypatch.setattr("dendrofx.search.raced.judge", interrupted)
    torch.manual_seed(1)
    options = {**OPTIONS, "tune_seconds": 5, "min_speedup": 0.01}
    model = classifier(0.01)
    made = dendrofx.transform(model, calibration=batches(), budget=Budget("flip", 0.05, 0.9), **asked(**options))
    assert "interrupted (Ctrl-C)" in made.plan.timing
    assert made.plan.refusal.startswith("tuning was interrupted before the rewritten model was timed")
