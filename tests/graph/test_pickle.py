"""What `transform` returned can be pickled: it runs, counts, scripts and answers for its plan as before."""

import pickle
from typing import Any

import pytest
import torch

import dendrofx
from dendrofx import Budget, LowRank, RoutedBlocks, Shadow
from dendrofx.compare import controls
from dendrofx.values.inputs import Inputs
from tests.asked import asked
from tests.search.cascade.models import Pooled, batches, classifier, padded, rows

FLIP = Budget("flip", 0.05, 0.9)
MADE = {
    "routed": {"light": LowRank(4), "budget": 0.1},
    "live rows": {"dead_rows": "mask", "budget": 0},
    "routed on live rows": {"dead_rows": "mask", "light": LowRank(4), "budget": 0.1},
    "cascade": {"scope": "model", "budget": FLIP, "light": LowRank(12)},
    "cascade on live rows": {"scope": "model", "budget": FLIP, "light": RoutedBlocks(0.2), "dead_rows": "mask"},
}


def transformed(options: Any) -> tuple[Any, dict[str, Any]]:
    """A module of one kind, and inputs for it."""
    torch.manual_seed(0)
    if "dead_rows" in options:
        data: list[Any] = [padded(40, seed) for seed in range(24)]
        made = dendrofx.transform(Pooled().eval(), calibration=data, **asked(**options, decide=False, tune_seconds=0))
        return made, padded(30, 99)
    made = dendrofx.transform(classifier(), calibration=batches(), **asked(**options, decide=False, tune_seconds=0))
    return made, {"input": rows(50, 9)}


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=pytest.mark.slow) if k == "cascade on live rows" else k for k in MADE]
)
def test_it_is_the_same_module(kind: str) -> None:
    made, inputs = transformed(MADE[kind])
    again = pickle.loads(pickle.dumps(made))
    assert again.plan == made.plan
    assert [(n.op, n.name) for n in again.graph.nodes] == [(n.op, n.name) for n in made.graph.nodes]
    assert again.code == made.code
    x = tuple(inputs.values())
    assert torch.equal(again(*x), made(*x))
    counts = made.forward_counted(*x)[1]
    assert again.forward_counted(*x)[1] == counts
    assert dendrofx.script(again).forward_counted(*x)[1] == counts
    if "dead_rows" in MADE[kind]:
        assert any(c["executed_macs"] < c["original_macs"] for n, c in counts.items() if n.endswith("dead rows"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["routed on live rows", "cascade on live rows"])
def test_its_recipe_comes_along(kind: str) -> None:
    made, inputs = transformed(MADE[kind])
    again = pickle.loads(pickle.dumps(made))
    x = tuple(inputs.values())
    assert torch.equal(controls.always_light(again)(*x), controls.always_light(made)(*x))
    if made.plan.budget:
        assert torch.equal(Shadow(again, FLIP, every=1)(inputs).losses, Shadow(made, FLIP, every=1)(inputs).losses)
    assert made.meta["dendrofx.recipe"].captured is not again.meta["dendrofx.recipe"].captured
    assert Inputs(x).samples == 30


class Twice(Pooled):
    """Reads the parameters of its norm twice: a graph of two reads, which tracing its code would make one."""

    def forward(self, x: Any, mask: Any) -> Any:
        return super().forward(self.norm(x), mask)


def test_a_parameter_that_is_read_twice() -> None:
    model, inputs = Twice().eval(), padded(9, 3)
    made = dendrofx.transform(model, inputs, dead_rows="mask", budget=0, options=dendrofx.Options(decide=False))
    again = pickle.loads(pickle.dumps(made))
    assert torch.equal(again(**inputs), made(**inputs))
    assert again.code == made.code
