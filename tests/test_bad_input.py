"""Bad input to `transform`: each message quotes what was given and says what to do."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dendrofx
from dendrofx import InputError, LearnedGate, LowRank, transform
from tests.models import Residual, compressible

REJECTS = (
    "Pass batches as the model is called: a tensor, a tuple of positional inputs or a dict of named ones, with the width"
    " and dtype it was trained on"
)


def rows(count: int = 200, width: int = 64) -> Tensor:
    return torch.randn(count, width)


def refusal(*args: Any, **options: Any) -> str:
    with pytest.raises(InputError) as error:
        transform(*args, **options)
    return str(error.value)


# ------------------------------------------------------------------------------------------------------ the model


def test_training_mode() -> None:
    model = compressible().train()
    assert refusal(model) == "'the model' (Sequential) is in training mode: call model.eval() first"
    assert refusal(model, calibration=[rows()]) == refusal(model)
    assert model.training


def test_one_layer_in_training_mode() -> None:
    model = Residual().eval()
    model.fc1.train()
    assert refusal(model) == "'fc1' (Residual) is in training mode: call model.eval() first"


@pytest.mark.parametrize("calibration", [None, [torch.randn(200, 64)]])
def test_a_model_on_another_device(calibration: Any) -> None:
    model = nn.Sequential(nn.Linear(64, 8, device="meta")).eval()
    assert refusal(model, calibration=calibration) == (
        "'0.weight' is on meta: it has no values. Load the model's weights first"
    )


def test_a_buffer_on_another_device() -> None:
    model = compressible()
    model.register_buffer("seen", torch.zeros(3, device="meta"))
    assert refusal(model) == "'seen' is on meta: it has no values. Load the model's weights first"


@pytest.mark.parametrize("model", ["model.pt", nn.Linear, {"weight": torch.zeros(3)}])
def test_what_is_no_module(model: Any) -> None:
    assert refusal(model) == f"transform takes an nn.Module, got {type(model).__name__}"


def test_a_model_that_was_transformed_already() -> None:
    routed = transform(compressible(), calibration=[rows(400)], decide=False)
    message = "the model already holds routed sites: transform the original model"
    assert refusal(routed) == message
    assert refusal(nn.Sequential(nn.ReLU(), routed).eval()) == message


# ------------------------------------------------------------------------------------------------------ its inputs


def test_wrong_width() -> None:
    message = refusal(compressible(), calibration=[rows(200, 63)])
    assert "Sequential rejects the inputs (input=float32[200, 63])" in message
    assert message.endswith(REJECTS)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64])
def test_wrong_dtype(dtype: torch.dtype) -> None:
    message = refusal(compressible(), calibration=[rows().to(dtype)])
    assert f"Sequential rejects the inputs (input={str(dtype).removeprefix('torch.')}[200, 64])" in message
    assert message.endswith(REJECTS)


def test_wrong_example_inputs() -> None:
    assert "rejects the inputs (input=float32[5, 63])" in refusal(compressible(), rows(5, 63))
    assert refusal(compressible(), "rows") == "a batch is a tensor, a tuple or a dict of tensors, got str"


def test_inputs_of_another_name_or_number() -> None:
    named = refusal(compressible(), calibration=[{"x": rows()}])
    assert named == "Sequential does not take the inputs (x=float32[200, 64]): missing a required argument: 'input'"
    labelled = (rows(), torch.zeros(200, dtype=torch.int64))
    assert refusal(compressible(), calibration=[labelled]) == (
        "Sequential does not take the inputs (float32[200, 64], int64[200]): too many positional arguments. If its last is a label,"
        " pass calibration=[input for input, _ in loader]"
    )


@pytest.mark.parametrize("batches", [4, 10])
@pytest.mark.parametrize("bad", [torch.zeros(40, 63), torch.zeros(40, 64, dtype=torch.float64)])
def test_one_batch_of_the_wrong_width_or_dtype(bad: Tensor, batches: int) -> None:
    """Which batch comes first after the cut is chance: every seed must give the same kind of error."""
    for seed in range(4):
        good = [rows(40) for _ in range(batches - 1)]
        message = refusal(compressible(), calibration=[*good, bad], seed=seed)
        assert "rejects the inputs (input=float" in message
        assert message.endswith(REJECTS)


def test_a_calibration_batch_on_another_device() -> None:
    message = "calibration batch 1 is on meta: move it to the CPU"
    assert refusal(compressible(), calibration=[rows(), rows().to("meta")]) == message


# --------------------------------------------------------------------------------------------------- calibration


@pytest.mark.parametrize("calibration", [[], iter(()), torch.zeros(0, 64)])
def test_empty_calibration(calibration: Any) -> None:
    assert refusal(compressible(), calibration=calibration) == (
        "calibration is empty: pass at least a few hundred samples, or calibration=None"
    )


def test_calibration_with_nan() -> None:
    bad = rows()
    bad[3, 4] = math.nan
    assert refusal(compressible(), calibration=[rows(), bad]) == (
        "calibration batch 1 (float32[200, 64]) holds 1 values that are NaN: drop these samples"
    )


def test_calibration_of_the_wrong_type() -> None:
    assert refusal(compressible(), calibration=3) == (
        "calibration is an iterable of batches, got int: for a single batch pass [batch]"
    )


# ------------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize("given_", [-1, -0.01, math.nan, math.inf, "0.01", True, [0.01]])
def test_max_deviation(given_: Any) -> None:
    assert refusal(compressible(), max_deviation=given_) == (
        f"max_deviation must be a number of at least 0, got {given_!r}; 0.01 is one percent"
    )


@pytest.mark.parametrize("given_", ["LowRank", LowRank, [], [LowRank(2), "x"], [None], 3, LearnedGate()])
def test_light(given_: Any) -> None:
    assert refusal(compressible(), calibration=[rows()], light=given_) == (
        f"light must be a light form such as dendrofx.LowRank(rank=32), or several, got {given_!r}"
    )


@pytest.mark.parametrize("given_", ["LearnedGate", LearnedGate, [LearnedGate()], 3, LowRank(2)])
def test_gate(given_: Any) -> None:
    assert refusal(compressible(), calibration=[rows()], gate=given_) == (
        f"gate must be a gate form such as dendrofx.LearnedGate(), or a module, got {given_!r}"
    )


@pytest.mark.parametrize("given_", ["0", 1.0, None, True, 2**70])
def test_seed(given_: Any) -> None:
    assert f"got {given_!r}" in refusal(compressible(), calibration=[rows()], seed=given_)


def test_sites_that_match_nothing() -> None:
    message = refusal(compressible(), sites="encoder.*")
    assert message == "sites='encoder.*' matches no site; the model has: 0..2"
    assert refusal(compressible(), sites=["0..2", "head"]) == "sites='head' matches no site; the model has: 0..2"


@pytest.mark.parametrize("given_", [3, [3]])
def test_sites_of_the_wrong_type(given_: Any) -> None:
    assert "3" in refusal(compressible(), sites=given_)


# ------------------------------------------------------------------------------------------------- at run time


def test_a_routed_module_names_the_site_that_rejects_its_rows() -> None:
    routed = transform(compressible(), calibration=[rows(400)], tune_seconds=0)
    assert routed.plan.routed
    kinds = (RuntimeError, torch.jit.Error)  # what TorchScript makes of a RuntimeError
    for module in (routed, dendrofx.script(routed)):
        with pytest.raises(kinds, match=r"site '0\.\.2' takes 64 features: pass \[\.\.\., 64\]"):
            module(rows(4, 63))
        with pytest.raises(kinds, match=r"site '0\.\.2' takes torch.float32: cast the input with \.float\(\)"):
            module(rows(4).double())


def test_a_site_that_only_other_inputs_reach_is_refused_in_words() -> None:
    """Rows that are not finite inside the model choose nothing; a site without two finite rows is refused."""
    with torch.no_grad():
        model = compressible()
        model[0].weight.fill_(math.inf)
    (site,) = transform(model, calibration=[rows()], tune_seconds=0).plan.sites
    assert (site.status, site.reason) == ("refused", "fewer than two of its calibration rows are finite (%_2)")
