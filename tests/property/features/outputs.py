"""What a module returns."""

from __future__ import annotations

from tests.property.draft import Draft
from tests.property.features.base import Feature


def _unequal(d: Draft) -> None:
    """A second output a hundred times as large, which hides the first."""
    layer = d.layer("nn.Linear(16, 1)")
    d.outputs["y"] = "0.1 * h"
    d.outputs["value"] = f"100 + {layer}(h)"


def _loss(d: Draft) -> None:
    d.outputs["loss"] = "h.square().mean()"


def _label(d: Draft) -> None:
    d.outputs["label"] = "h.argmax(-1)"


def _other_axis(d: Draft) -> None:
    d.outputs["other"] = d.rng.choice(["h.transpose(0, -1)", "h.reshape(-1, 16).mean(0)"])


def _size(d: Draft) -> None:
    name, axis = d.sized()
    d.outputs["size"] = f"{name}.shape[{axis}]"


FORMS = ("tuple", "list", "dict", "dataclass", "namedtuple", "nested")


def form(d: Draft) -> None:
    """Draw the form that holds the outputs."""
    if len(d.outputs) == 1 and d.rng.random() < 0.5:
        return
    d.form = d.rng.choice(FORMS)
    d.features.append(f"output, {d.form}")


FEATURES = (
    Feature("outputs of unequal size", 0.15, _unequal),
    Feature("loss among the outputs", 0.08, _loss),
    Feature("labels among the outputs", 0.08, _label),
    Feature("output whose first axis is no sample", 0.07, _other_axis),
    Feature("size among the outputs", 0.065, _size),
)
