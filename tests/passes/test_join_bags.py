"""JoinBags: bags of a sample's own ids are one operation, and others stay as they are."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from dendrofx.graph.capture import capture
from dendrofx.lowering.script import script
from dendrofx.passes import JoinBags, run_passes
from dendrofx.runtime.bags import bag_rows
from dendrofx.values.inputs import Inputs

MODES: dict[str, dict[str, Any]] = {
    "sum": {"mode": "sum"},
    "mean": {"mode": "mean"},
    "max": {"mode": "max"},
    "padded": {"mode": "mean", "padding_idx": 3},
}


class Bags(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(20, 6, **options)
        self.eval().requires_grad_(False)

    def forward(self, ids: Tensor, places: Tensor) -> Tensor:
        return self.bag(ids) + places[:, None]  # type: ignore[no-any-return]


def given(rows: int, ids: int = 5) -> dict[str, Tensor]:
    return {"ids": torch.randint(20, (rows, ids)), "places": torch.arange(rows) * ids}


def joined(model: nn.Module) -> fx.GraphModule:
    gm = capture(model, Inputs.of(given(4)), shapes=True)
    return run_passes(gm, [JoinBags()]).graph_module


@pytest.mark.parametrize("mode", MODES)
def test_bags_of_samples_are_joined(mode: str) -> None:
    model = Bags(**MODES[mode])
    gm = joined(model)
    assert next(n.target for n in gm.graph.nodes if n.op == "call_function") is bag_rows
    for ready in (gm, script(gm)):
        for inputs in (given(4), given(1), given(7, 3)):
            assert torch.equal(ready(**inputs), model(**inputs))


def test_bags_of_other_lengths_are_left_alone() -> None:
    """Where bags begin is an input, so that a sample's ids are in no row of their own."""
    gm = capture(Bags(mode="sum"), Inputs.of(given(4)), shapes=True)
    (bags,) = [n for n in gm.graph.nodes if n.target is torch.ops.aten.embedding_bag]
    places = next(n for n in gm.graph.nodes if n.target == "places")
    bags.args = (*bags.args[:2], places, *bags.args[3:])
    assert not run_passes(gm, [JoinBags()]).modified


def test_bags_are_as_they_were_after_capture() -> None:
    before = F.embedding_bag
    joined(Bags(mode="sum"))
    assert F.embedding_bag is before
