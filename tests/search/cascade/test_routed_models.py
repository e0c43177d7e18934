"""Block routing inside a cascade: `RoutedBlocks` as its light model, as its full model, and as both."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import dendrofx
from dendrofx import Budget, CertificateError, InputError, LowRank, Plan, RoutedBlocks
from dendrofx.values.counts import executed_macs, executed_work, live_share
from dendrofx.values.forms import form_from_text
from dendrofx.values.inputs import Inputs
from dendrofx.values.measure import deviation, model_macs
from tests.asked import asked
from tests.check import OTHER_GEMM
from tests.search.cascade.models import Pooled, batches, classifier, padded, rows

FLIP = Budget("flip", 0.05, 0.9)
LIGHT, FULL = RoutedBlocks(0.3), RoutedBlocks(0.02)
FORMS = [
    {"light": LIGHT},
    {"light": [LowRank(4), LowRank(12)], "full": FULL},
    {"light": LIGHT, "full": FULL},
]


def cascade(model: Any, calibration: Any = None, **options: Any) -> Any:
    """A cascade that is certified, or the test fails."""
    given = {"budget": FLIP, "scope": "model", "tune_seconds": 0, "decide": False, **options}
    made = dendrofx.transform(model, calibration=batches() if calibration is None else calibration, **asked(**given))
    assert made.plan.certificate is not None, str(made.plan)
    return made


def inside(module: Any, which: str) -> Any:
    """The light or the full model of a cascade, of one list of tensors."""
    inner = module.routed.model
    return inner.light if which == "light" else inner.full.full


@pytest.mark.parametrize("forms", FORMS)
def test_the_blocks_inside_are_routed_row_by_row(forms: Any) -> None:
    model, x = classifier(), rows(4000, 3)
    made = cascade(model, **forms)
    plan = made.plan.cascade
    asked = {"light": forms["light"] == LIGHT, "full": "full" in forms}
    assert {which: getattr(plan, f"{which}_plan") is not None for which in asked} == asked
    assert 0 < made.forward_counted(x)[1]["model"]["hard_rows"] < 4000
    dendrofx.set_tolerances(made, {"model": 0.0})  # all samples run both models
    _, counts = made.forward_counted(x)
    for which, form in (("light", LIGHT), ("full", FULL)):
        if asked[which]:
            inner = getattr(plan, f"{which}_plan")
            (site,) = inner.routed
            seen = counts[f"{which}/{site.name}"]
            assert inner.max_deviation == form.max_deviation
            assert 0 < seen["hard_rows"] < seen["rows"]


@pytest.mark.parametrize("forms", FORMS)
def test_the_tolerance_chooses_between_the_two_models(forms: Any) -> None:
    model, x = classifier(), rows(64, 4)
    made = cascade(model, **forms)
    for tolerance, which in ((float("inf"), "light"), (0.0, "full")):
        dendrofx.set_tolerances(made, {"model": tolerance})
        assert torch.equal(made(x), inside(made, which)([x])[0])
    same = torch.equal(made(x), model(x))
    assert same == ("full" not in forms)


def test_each_stays_within_its_own_deviation() -> None:
    model, x = classifier(), rows(4000, 5)
    made = cascade(model, light=LIGHT, full=FULL)
    for which, form in (("light", LIGHT), ("full", FULL)):
        with torch.no_grad():
            far = deviation(model(x), inside(made, which)([x])[0])
        mean = float(far.mean())
        assert 0.1 * form.max_deviation < mean <= 1.1 * form.max_deviation  # calibrated on other samples


def test_scripted_it_computes_and_counts_the_same() -> None:
    made, x = cascade(classifier(), light=LIGHT, full=FULL), rows(50, 6)
    for freeze in (False, True):
        scripted = dendrofx.script(made, freeze=freeze)
        for part in (x, x[:1], x[:0]):
            for _ in range(3):
                assert torch.equal(scripted(part), made(part)), f"freeze={freeze}"
            assert scripted.forward_counted(part)[1] == made.forward_counted(part)[1]


def test_effective_compute_counts_the_gates_and_branches_inside() -> None:
    model, x = classifier(), rows(400, 7)
    plain, routed = cascade(model, light=LowRank(12)), cascade(model, light=LIGHT)
    original = model_macs(model, [Inputs((x,))])
    dendrofx.set_tolerances(routed, {"model": float("inf")})
    _, counts = routed.forward_counted(x)
    (site,) = [c for n, c in counts.items() if n.startswith("light/")]
    assert executed_work(counts, original) == site["gate_work"] + site["light_work"] + site["full_work"]
    assert executed_macs(counts, original) > 0
    dendrofx.set_tolerances(plain, {"model": float("inf")})
    assert executed_macs(plain.forward_counted(x)[1], original) > 0


@pytest.mark.slow
def test_with_dead_rows_in_both_models() -> None:
    torch.manual_seed(0)
    model = Pooled().eval()
    data = [padded(40, seed) for seed in range(24)]
    made = cascade(model, data, light=LIGHT, full=RoutedBlocks(0.01), dead_rows="mask")
    inputs = padded(200, 99)
    _, counts = made.forward_counted(**inputs)
    assert counts["light/dead rows"]["live_rows"] == int(inputs["mask"].sum())
    assert "full/dead rows" in counts
    assert live_share(counts) == float(inputs["mask"].double().mean())
    names = [s.name for s in made.plan.cascade.light_plan.routed]
    assert names
    assert any(0 < counts[f"light/{n}"]["hard_rows"] < counts[f"light/{n}"]["rows"] for n in names)
    scripted = dendrofx.script(made)
    torch.testing.assert_close(scripted(**inputs), made(**inputs), rtol=0, atol=0)
    parts = [{k: v[i : i + 1] for k, v in inputs.items()} for i in range(20)]
    alone = torch.cat([made(**p) for p in parts])
    torch.testing.assert_close(made(**{k: v[:20] for k, v in inputs.items()}), alone, **OTHER_GEMM)


def test_plans_keep_what_is_inside_and_are_replayed_bit_for_bit(tmp_path: Path) -> None:
    model, x = classifier(), rows(300, 8)
    made = cascade(model, light=LIGHT, full=FULL)
    made.plan.save(tmp_path / "plan.json")
    plan = Plan.load(tmp_path / "plan.json")
    assert plan == made.plan
    again = dendrofx.transform(model, calibration=batches(), plan=plan)
    assert torch.equal(again(x), made(x))
    assert again.plan.certificate == made.plan.certificate
    text = str(made.plan)
    assert f"cascade: {LIGHT}, then {FULL} for samples with" in text
    assert "the blocks of the light model:" in text
    assert "the blocks of the full model:" in text
    assert "never runs" not in text


def test_a_changed_tolerance_inside_voids_the_certificate(tmp_path: Path) -> None:
    made = cascade(classifier(), light=LIGHT)
    dendrofx.save(made, tmp_path / "kept.pt")
    assert replace(dendrofx.certificate(tmp_path / "kept.pt"), archive="") == made.plan.certificate
    dendrofx.set_tolerances(inside(made, "light"), dict.fromkeys(dendrofx.tolerances(inside(made, "light")), 0.5))
    with pytest.raises(CertificateError):
        made.plan.certificate.verify(made)


@pytest.mark.slow
def test_the_test_samples_serve_nothing_inside() -> None:
    model = classifier()
    first = cascade(model, light=LIGHT, full=FULL)
    data = batches()
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0)).tolist()
    for i in order[10:]:
        data[i] = rows(50, 100 + i)
    second = cascade(model, data, light=LIGHT, full=FULL)
    assert second.plan.cascade.light_plan == first.plan.cascade.light_plan
    assert second.plan.cascade.full_plan == first.plan.cascade.full_plan
    assert second.plan.certificate.inputs != first.plan.certificate.inputs


@pytest.mark.slow
def test_every_setting_of_the_front_can_be_made() -> None:
    made = cascade(classifier(), light=[LowRank(4), LIGHT], full=FULL)
    for setting in (made.settings[0], made.settings[-1]):
        module = setting.make()
        assert module.plan.certificate is not None
        assert module.plan.cascade.full == FULL


@pytest.mark.slow
def test_timed_it_is_decided_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dendrofx.plan.times.ModelTimes.wins", lambda *_: True)  # whatever this machine measures
    model = classifier()
    options = {"tune_seconds": 5, "min_speedup": 0.01, "decide": True, "batch_sizes": [50]}
    made = dendrofx.transform(
        model,
        calibration=batches(),
        budget=FLIP,
        scope="model",
        light=[LowRank(12), LIGHT],
        **asked(**options, full=FULL),
    )
    assert made.plan.cascade.status in ("routed", "refused")
    assert made(rows(9)).shape == (9, 5)


def test_where_nothing_inside_is_routed_the_reason_is_given() -> None:
    made = dendrofx.transform(
        classifier(noise=2.0),
        calibration=batches(),
        budget=FLIP,
        scope="model",
        options=dendrofx.Options(tune_seconds=0),
        light=RoutedBlocks(1e-6),
    )
    assert made.plan.certificate is None
    assert made.plan.refusal.startswith("with RoutedBlocks(max_deviation=1e-06) no block is routed: no light form pays")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"scope": "block", "light": RoutedBlocks(0.05)},
            r"RoutedBlocks\(max_deviation=0.05\) is a form of the whole model",
        ),
        ({"scope": "block", "full": RoutedBlocks(0.05)}, "pass budget=0.05"),
        ({"light": ["RoutedBlocks"]}, "light must be a light form"),
        ({"full": "RoutedBlocks"}, "full must be a light form"),
    ],
)
def test_bad_options_are_quoted(options: Any, says: Any) -> None:
    given = {"scope": "model", "budget": FLIP, **options}
    with pytest.raises(InputError, match=says):
        dendrofx.transform(classifier(), calibration=batches(), **asked(**given))


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), "0.1", True, None])
def test_deviations_that_cannot_be_kept_are_refused(value: Any) -> None:
    with pytest.raises(InputError, match="max_deviation must be a number above 0"):
        RoutedBlocks(value)


def test_it_is_written_and_read_like_every_form() -> None:
    assert form_from_text("RoutedBlocks(0.05)") == RoutedBlocks(0.05)
    assert str(RoutedBlocks(0.05)) == "RoutedBlocks(max_deviation=0.05)"
