"""Autocast, another default type, inference mode: transforming is the same in each, and calls work or say why not."""

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn

import dendrofx
from dendrofx.values.numerics import plain_numerics, rounding
from tests.asked import asked
from tests.models import compressible
from tests.round_trips import reloaded

OPTIONS: dict[str, Any] = {"light": dendrofx.LowRank(4), "decide": False, "budget": 0.3, "tune_seconds": 0}


def model() -> nn.Module:
    """Two sites; the second reads what autocast leaves in float32."""
    torch.manual_seed(0)
    return nn.Sequential(compressible(20, 64, 24), nn.LayerNorm(24), nn.Linear(24, 10)).eval()


def data() -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randn(64, 20) for _ in range(8)]


@contextmanager
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


SWITCHED = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "float64 by default": float64,
    "inference mode": torch.inference_mode,
}


@pytest.fixture(scope="module")
def plain() -> Any:
    return dendrofx.transform(model(), calibration=data(), **asked(**OPTIONS))


@pytest.mark.parametrize("mode", SWITCHED)
def test_transforming_is_the_same(mode: str, plain: Any) -> None:
    given, batches = model(), data()
    with SWITCHED[mode]():
        made = dendrofx.transform(given, calibration=batches, **asked(**OPTIONS))
        state = torch.get_default_dtype(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
        assert state == (torch.float64 if "float64" in mode else torch.float32, "mode" in mode, mode == "autocast")
    assert str(made.plan) == str(plain.plan)
    x = torch.randn(5, 20)
    with torch.no_grad():
        assert torch.equal(made(x), plain(x))
    assert not any(t.is_inference() for t in [*made.parameters(), *made.buffers()])


def test_the_numerics_are_of_this_thread() -> None:
    seen = {}
    with torch.autocast("cpu", torch.bfloat16), plain_numerics():
        assert not torch.is_autocast_enabled("cpu")
        assert not torch.is_grad_enabled()
        thread = threading.Thread(target=lambda: seen.update(grad=torch.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == {"grad": True}
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("scripted", [False, True], ids=["eager", "scripted"])
def test_a_call_under_autocast_says_so(scripted: bool, plain: Any) -> None:
    made: Any = dendrofx.script(plain) if scripted else plain
    x = torch.randn(5, 20)
    for tolerance in (0.0, 0.3, torch.inf):
        dendrofx.set_tolerances(made, dict.fromkeys(dendrofx.tolerances(made), tolerance))
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), pytest.raises(Exception, match=r"torch\.autocast"):
            made(x)
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        made(x)


@pytest.mark.parametrize("light", [dendrofx.LowRank(4), dendrofx.Int8()], ids=str)
@pytest.mark.parametrize("gate", [dendrofx.LearnedGate(), dendrofx.ResidualGate(), dendrofx.NoiseGate()], ids=str)
def test_calls_with_another_default_type(light: dendrofx.LightForm, gate: dendrofx.GateForm) -> None:
    made = dendrofx.transform(model(), calibration=data(), **asked(**{**OPTIONS, "light": light, "gate": gate}))
    scripted, x = dendrofx.script(made), torch.randn(5, 20)
    wanted = made(x)
    with float64():
        for called in (made, scripted):
            torch.testing.assert_close(called(x), wanted, rtol=1e-5, atol=1e-6)


def test_tolerances_of_what_was_made_copied_or_loaded_in_inference_mode(plain: Any) -> None:
    with torch.inference_mode():
        made = dendrofx.transform(model(), calibration=data(), **asked(**OPTIONS))
        copied, scripted = copy.deepcopy(plain), dendrofx.script(made)
        loaded = reloaded(scripted)
    for module in (made, copied, scripted, loaded):
        dendrofx.set_tolerances(module, dict.fromkeys(dendrofx.tolerances(module), 0.125))
        assert {float(t) for t in dendrofx.tolerances(module).values()} == {0.125}
        module(torch.randn(3, 20))


def test_rounding_is_that_of_the_coarsest_type() -> None:
    assert rounding(torch.float64, torch.bfloat16, torch.int64) == rounding(torch.bfloat16)
    assert rounding() == rounding(torch.float32)
