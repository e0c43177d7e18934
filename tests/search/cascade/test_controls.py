"""The controls of a cascade, its counts, and what is printed."""

from typing import Any

import pytest
import torch

import dendrofx
from dendrofx import Budget, LowRank, MarginGate
from dendrofx.compare import controls
from dendrofx.values.counts import activity, executed_macs
from dendrofx.values.inputs import Inputs
from dendrofx.values.measure import counted_outputs, model_macs
from tests.search.cascade.models import batches, classifier, rows


@pytest.fixture(scope="module")
def pair() -> tuple[Any, Any]:
    torch.manual_seed(2)
    model = classifier()
    made = dendrofx.transform(
        model,
        calibration=batches(),
        budget=Budget("flip", 0.02, 0.9),
        scope="model",
        light=LowRank(8),
        gate=MarginGate(),
        options=dendrofx.Options(tune_seconds=0),
    )
    assert made.plan.certificate is not None, str(made.plan)
    return model, made


def share(module: Any, x: torch.Tensor) -> float:
    return activity(module.forward_counted(x)[1])


def test_always_full_is_the_original_and_always_light_recomputes_nothing(pair: tuple[Any, Any]) -> None:
    model, made = pair
    x = rows(64, 3)
    full, light = controls.always_full(made), controls.always_light(made)
    assert torch.equal(full(x), model(x))
    assert (share(full, x), share(light, x)) == (1.0, 0.0)
    assert 0 < share(made, x) < 1  # the module itself is as it was


def test_random_takes_as_many_by_chance_and_the_oracle_the_worst(pair: tuple[Any, Any]) -> None:
    model, made = pair
    batch = Inputs((rows(2000, 4),))
    (output,), counts = counted_outputs(made, [batch])
    random, oracle = controls.at_random(made, counts, 0), controls.by_oracle(made, counts, batch)
    assert share(random, batch.args[0]) == pytest.approx(activity(counts), abs=0.03)
    assert share(oracle, batch.args[0]) == pytest.approx(activity(counts), abs=0.002)
    far = {
        name: (m(batch.args[0]) - model(batch.args[0])).norm() for name, m in (("random", random), ("oracle", oracle))
    }
    assert far["oracle"] < (output - model(batch.args[0])).norm()
    assert far["oracle"] < far["random"]
    parts = batch.args[0].split(300)
    assert sum(oracle.forward_counted(p)[1]["model"]["hard_rows"] for p in parts) == pytest.approx(
        oracle.forward_counted(batch.args[0])[1]["model"]["hard_rows"], abs=2
    )


def test_executed_multiply_adds_by_hand(pair: tuple[Any, Any]) -> None:
    model, made = pair
    x = rows(100, 5)
    counts = made.forward_counted(x)[1]
    original, hard = model_macs(model, [Inputs((x,))]), counts["model"]["hard_rows"]
    assert original == 100 * (64 * 256 + 256 * 5)
    light = 100 * (8 * (64 + 256) + 256 * 5 if counts["light/0..2"]["light_macs"] else 0)
    assert executed_macs(counts, original) == pytest.approx(counts["light/0..2"]["light_macs"] + hard * original / 100)
    assert counts["light/0..2"]["light_macs"] <= light


def test_the_graph_names_light_gate_and_full(pair: tuple[Any, Any]) -> None:
    _, made = pair
    text = dendrofx.graph_text(made)
    said = "# site model   cascade: LowRank(rank=8, basis='weight'), then the original for samples with MarginGate() >="
    assert said in " ".join(text.split("\n#   ")[:2])
    for part in ("model.light(", "model.gate(", "if score < tolerance:", "model.full(", "# site 0..2"):
        assert part in text
    assert text.index("# end model") < text.index("# model.light") < text.index("# model.full")
    assert max(map(len, text.splitlines())) <= 120
    assert "cascade: LowRank(rank=8" in str(made.plan)
    assert "certified: flip at most 2 % with 90 % confidence" in str(made.plan)
    assert made.plan.summary() == "samples routed between two models: not timed, flip at most 2 % (certified)"
