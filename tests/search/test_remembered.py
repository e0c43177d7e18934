"""What is remembered from one transform to the next: the same plans, and nothing fitted twice."""

from typing import Any

import pytest
from torch import nn

import dendrofx
from dendrofx import AlwaysLight, LearnedGate, LowRank, Options, Pruned
from dendrofx.search.profiler import Profiler
from dendrofx.search.remembered import Remembered, remembering
from tests.models import compressible
from tests.recorded import rows

FORMS = [LowRank(4), LowRank(6), Pruned(0.9)]


def plan(model: nn.Module, size: int, data: Any, **options: Any) -> str:
    counted = Options(tune_seconds=0)
    asked = {"calibration": data, "budget": 0.05, "light": FORMS, "batch_sizes": [size], **options}
    return str(dendrofx.transform(model, options=counted, **asked).plan)


def test_what_is_remembered_is_not_fitted_again_and_decides_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[object] = []
    for kind, name in ((LowRank, "build"), (Pruned, "build"), (LearnedGate, "fit")):
        fit = getattr(kind, name)
        monkeypatch.setattr(kind, name, lambda *a, fit=fit: (fit(*a), fitted.append(a[0]))[0])
    model = compressible()
    data, other = ([rows(60, 100 * seed + i) for i in range(10)] for seed in (0, 1))
    alone = [
        plan(model, 1, data),
        plan(model, 256, data),
        plan(model, 256, data, gate=AlwaysLight()),
        plan(model, 256, other),
    ]
    fitted.clear()
    with remembering(Remembered()):
        first = plan(model, 1, data)
        assert (count := len(fitted)) > 0
        together = [first, plan(model, 256, data), plan(model, 256, data, gate=AlwaysLight())]
        assert len(fitted) == count
        together.append(plan(model, 256, other))
        assert len(fitted) == 2 * count
    assert together == alone


def test_times_are_remembered_inside_alone() -> None:
    known = Remembered()
    with remembering(known):
        Profiler(1.0).known["block"] = 2.0
        assert Profiler(1.0).known == known.times == {"block": 2.0}
    assert Profiler(1.0).known == {}
