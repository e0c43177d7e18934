"""The oracle finds what is planted: a stand-in for `transform` that is wrong in one way."""

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dendrofx
from tests.property import outcome
from tests.property.draft import Draft
from tests.property.features import draw
from tests.property.features.modules import HOOKED, changed
from tests.property.how import How
from tests.property.oracle import examine


class Planted(nn.Module):
    """The model, wrong in one way."""

    def __init__(self, model: nn.Module, first: Any, fault: str) -> None:
        super().__init__()
        self.model, self.first, self.fault, self.calls = copy.deepcopy(model), _seen(first), fault, 0
        self.plan = SimpleNamespace(capture="equal to the model bit for bit" if fault == "words" else "captured")
        site = nn.Module()
        site.register_buffer("tolerance", torch.ones(()))
        self.routed = nn.ModuleDict({"site": site})
        if fault == "hooks":
            for module in self.model.modules():
                module._forward_hooks.clear()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        out = self.model(*args, **kwargs)
        self.calls += 1
        given, there = _seen(kwargs or args), self.first
        wrong = {
            "values": lambda: True,
            "sizes": lambda: len(given) == len(there) and given != there,
            "left out": lambda: len(given) < len(there),
            "state": lambda: self.calls > 5,
            "one output": lambda: float(self.routed["site"].tolerance) > 0,
        }
        if not wrong.get(self.fault, bool)():
            return out
        return {**out, "y": changed(out["y"])} if self.fault == "one output" else changed(out)


def _seen(given: Any) -> list[Any]:
    """What a call gives: shapes, and a word for what is no tensor."""
    return sorted(list(v.shape) if isinstance(v, Tensor) else [-1] for v in _values(given))


def _values(given: Any) -> list[Any]:
    return list(given.values()) if isinstance(given, dict) else list(given)


def _found(monkeypatch: pytest.MonkeyPatch, fault: str, fits: Callable[[Draft, How], bool]) -> set[str]:
    """The kinds that the oracle finds in the first module that fits."""

    def transform(model: nn.Module, example_inputs: Any = (), **_: Any) -> nn.Module:
        if fault == "parameter":
            next(model.parameters()).data.add_(1)
        if fault == "example":
            next(v for v in _values(example_inputs) if isinstance(v, Tensor) and v.is_floating_point()).zero_()
        return Planted(model, example_inputs, fault).eval()

    monkeypatch.setattr(dendrofx, "transform", transform)
    drafts = ((n, draw(n)) for n in range(2000))
    number = next(n for n, d in drafts if not d.invalid and fits(d, How.draw(d)))
    return set(examine(number).wrong) - {outcome.UNSCRIPTED}  # the stand-in does not script


def _plain(d: Draft, how: How) -> bool:
    return how.data == "example" and len(d.arguments) == len(d.required) and not d.has(*HOOKED)


def _flagged(d: Draft, how: How) -> bool:
    return how.data == "example" and d.has("flag, float") and "scale" in how.form.given and not d.has(*HOOKED)


def _budgeted(d: Draft, how: How) -> bool:
    return bool(how.data == "calibration" and how.deviation and d.form == "dict" and "value" in d.outputs)


FAULTS: dict[str, tuple[str, Callable[[Draft, How], bool]]] = {
    "values": (outcome.VALUES, _plain),
    "sizes": (outcome.SIZED, _plain),
    "one output": (outcome.OUTPUTS, _budgeted),
    "hooks": (outcome.HOOKS, lambda d, _: d.has("hook on the model")),
    "words": (outcome.WORDS, lambda _, how: how.data == "none"),
    "left out": (outcome.FLAGGED, _flagged),
    "state": (outcome.CALLER, _plain),
    "parameter": (outcome.CALLER, _plain),
    "example": (outcome.CALLER, _plain),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_found(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    kind, fits = FAULTS[fault]
    assert kind in _found(monkeypatch, fault, fits)


def test_a_right_result_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not _found(monkeypatch, "none", _plain)
