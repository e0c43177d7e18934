"""The oracle finds what is planted: a stand-in for `transform` that is wrong in one way."""

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dendrofx
from tests.property import oracle
from tests.property.features import draw
from tests.property.features.modules import HOOKED, changed
from tests.property.how import How


class Planted(nn.Module):
    """The model, wrong in one way."""

    def __init__(self, model: nn.Module, first: Any, fault: str) -> None:
        super().__init__()
        self.model, self.sizes, self.fault = copy.deepcopy(model), _shapes(first), fault
        self.plan = SimpleNamespace(
            capture="captured, equal to the model bit for bit" if fault == "words" else "captured"
        )
        self.calls = 0

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        out = self.model(*args, **kwargs)
        self.calls += 1
        other_sizes = self.sizes != _shapes((*args, *kwargs.values()))
        wrong = {"values": True, "sizes": other_sizes, "state": self.calls > 5}.get(self.fault, False)
        return changed(out) if wrong else out


def _shapes(given: Any) -> list[Any]:
    tensors = given.values() if isinstance(given, dict) else given if isinstance(given, tuple) else (given,)
    return sorted(list(t.shape) for t in tensors if isinstance(t, Tensor))


def _found(monkeypatch: pytest.MonkeyPatch, fault: str, fits: Callable[[Any, How], bool]) -> set[str]:
    """The kinds that the oracle finds in the first module that fits."""

    def transform(model: nn.Module, example_inputs: Any = None, **_: Any) -> nn.Module:
        if fault == "parameter":
            next(model.parameters()).data.add_(1)
        if fault == "example":
            next(t for t in _tensors(example_inputs) if t.is_floating_point()).zero_()
        return Planted(model, example_inputs, fault).eval()

    monkeypatch.setattr(dendrofx, "transform", transform)
    number = next(n for n in range(2000) if fits(draw(n), How.draw(draw(n))))
    with torch.random.fork_rng(devices=[]):
        return set(oracle.examine(number).wrong)


def _tensors(given: Any) -> list[Tensor]:
    return [t for t in (given.values() if isinstance(given, dict) else given) if isinstance(t, Tensor)]


def _plain(d: Any, how: How) -> bool:
    return how.data == "example" and not d.invalid and len(d.arguments) == len(d.required) and not d.has(*HOOKED)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("values", oracle.VALUES),
        ("sizes", oracle.SIZED),
        ("state", oracle.CALLER),
        ("parameter", oracle.CALLER),
        ("example", oracle.CALLER),
    ],
)
def test_planted_faults_are_found(monkeypatch: pytest.MonkeyPatch, fault: str, kind: str) -> None:
    assert kind in _found(monkeypatch, fault, _plain)


def test_words_without_a_run_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert oracle.WORDS in _found(monkeypatch, "words", lambda d, how: how.data == "none" and not d.invalid)


def test_a_right_result_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not script: nothing else is found."""
    assert _found(monkeypatch, "none", _plain) == {oracle.UNSCRIPTED}
