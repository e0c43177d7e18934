"""Weights that something was fitted to: another model's are refused, in Python and in the artifact."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

import dendrofx
from dendrofx.gates import LearnedGate
from dendrofx.light import BFloat16, Int8, LowRank, Prepacked, Pruned
from dendrofx.lowering.fitted import MARK
from dendrofx.rewriting.module import RoutedModule
from tests.asked import asked
from tests.made import SAME_KERNELS, loaded, set_all
from tests.models import Mlp

FITTED: dict[str, dict[str, Any]] = {
    "low rank": {"light": LowRank(4)},
    "pruned": {"light": Pruned(0.6)},
    "int8": {"light": Int8()},
    "int8 of 7 bits": {"light": Int8(7)},
    "prepacked": {"light": Prepacked()},
    "pruned, prepacked": {"light": Pruned(0.6, precision=Prepacked())},
    "bfloat16": {"light": BFloat16()},
    "bfloat16, packed": {"light": BFloat16(packed=True)},
    "full prepacked": {"light": LowRank(4), "full": Prepacked()},
}


def fitted(options: dict[str, Any], seed: int) -> RoutedModule:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(16, 48), nn.ReLU(), nn.Linear(48, 8)).eval()
    data = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    return dendrofx.transform(
        model, calibration=data.split(8), gate=LearnedGate(), **asked(**options, decide=False, tune_seconds=0)
    )


@pytest.mark.parametrize("kind", FITTED)
def test_another_models_weights_are_refused(kind: str) -> None:
    """Some tensors would take them; laid-out weights and plain numbers would stay those of the old ones."""
    one, two = (fitted(FITTED[kind], seed) for seed in (1, 2))
    if not one.plan.routed:
        pytest.skip(one.plan.sites[0].reason)  # this CPU lacks what the form needs
    x, scripted, other = torch.randn(20, 16), dendrofx.script(one), dendrofx.script(two)
    again = loaded(scripted)
    before = one(x)
    for strict in (True, False):
        for module in (one, scripted):
            with pytest.raises(dendrofx.InputError, match="the state dict is another module's: "):
                module.load_state_dict(other.state_dict(), strict=strict)
        with pytest.raises(RuntimeError, match="size mismatch for fitted_to_these_weights"):
            again.load_state_dict(other.state_dict(), strict=strict)
    assert torch.equal(one(x), before)
    with pytest.raises(dendrofx.InputError, match="'fitted_to_these_weights' differs"):
        one.load_state_dict({MARK: other.state_dict()[MARK]}, strict=False)


@pytest.mark.parametrize("kind", ["low rank", "int8 of 7 bits", "pruned, prepacked"])
def test_its_own_state_is_taken_tolerances_among_it(kind: str) -> None:
    module = fitted(FITTED[kind], 1)
    scripted, x = dendrofx.script(module), torch.randn(20, 16)
    again, changed = loaded(scripted), copy.deepcopy(module)
    set_all(changed, math.inf)
    for taker, state in (
        (module, changed.state_dict()),
        (scripted, dendrofx.script(changed).state_dict()),
        (again, dendrofx.script(changed).state_dict()),
    ):
        set_all(taker, 0.0)
        assert str(taker.load_state_dict(state)) == "<All keys matched successfully>"
        torch.testing.assert_close(taker(x), changed(x), **SAME_KERNELS)


def test_a_module_that_nothing_was_fitted_to_takes_any_weights() -> None:
    one, two = (dendrofx.transform(Mlp().eval(), sites=[], options=dendrofx.Options(tune_seconds=0)) for _ in range(2))
    x = torch.randn(4, 16)
    assert not torch.equal(one(x), two(x))
    dendrofx.script(one).load_state_dict(dendrofx.script(two).state_dict())
    one.load_state_dict(two.state_dict())
    assert torch.equal(one(x), two(x))
