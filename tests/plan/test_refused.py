"""Plans that belong elsewhere, or whose certificate does not follow: each refused by name."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import dendrofx
from dendrofx import LowRank, Plan, PlanError, SitePlan
from dendrofx.guarantee import binomial_p
from dendrofx.machine.capability import capability
from dendrofx.plan.origin import Origin
from tests.made import batches, made


def refused(kind: str, plan: Plan, **changes: Any) -> str:
    """What is said of a plan for a made model."""
    with pytest.raises(PlanError) as error:
        made(kind).replayed(plan, **changes)
    return str(error.value)


def origin() -> Origin:
    found = made("mlp").plan.origin
    assert found is not None
    return found


# -------------------------------------------------------------------------------------------------- of another origin


@pytest.mark.parametrize("redecide", [False, True])
def test_another_model(redecide: bool) -> None:
    other = copy.deepcopy(made("mlp").model)
    with torch.no_grad():
        next(other.parameters())[3, 5] += 1e-6
    with pytest.raises(PlanError) as error:
        dendrofx.transform(
            other, calibration=batches(), plan=made("mlp").plan, options=dendrofx.Options(redecide=redecide)
        )
    assert str(error.value).startswith(f"the plan was made for another model: fingerprint {origin().model} there, ")
    assert str(error.value).endswith(" here")


def with_another_value(data: list[Tensor]) -> list[Tensor]:
    data[4][7, 7] += 1e-3
    return data


OTHER_DATA: dict[str, Callable[[list[Tensor]], Any]] = {
    "a value": with_another_value,
    "the order": lambda data: data[::-1],
    "one batch less": lambda data: data[:-1],
    "none": lambda data: None,
}


@pytest.mark.parametrize("change", OTHER_DATA)
def test_other_calibration_data(change: str) -> None:
    message = refused("mlp", made("mlp").plan, calibration=OTHER_DATA[change](batches()))
    assert message.startswith("the plan was made with other calibration data: fingerprint ")
    assert ("there, None here" in message) is (change == "none")
    assert message.endswith("Light branches and gates are fitted to it again: pass the same batches in the same order")


def test_data_where_there_was_none() -> None:
    assert "fingerprint None there, " in refused("no-data", made("no-data").plan, calibration=batches())


AGAIN = "Pass redecide=True to decide anew on this machine"
VERSION = "the plan was made by another version: {} 0.0.1 there, {} here. " + AGAIN
MACHINE = "the plan was made on another machine: {} cores there, {} cores here{}. Its times do not hold here. " + AGAIN


@pytest.mark.parametrize("redecide", [False, True])
def test_no_origin(redecide: bool) -> None:
    message = refused("mlp", replace(made("mlp").plan, origin=None), redecide=redecide)
    assert message == "the plan does not say where it was made: take one that transform returned"


def test_another_version_or_machine() -> None:
    here = origin()
    cores, vnni = f"{here.cpu}, {here.cores}", here.capability.vnni
    for changes, message in (
        ({"dendrofx": "0.0.1"}, VERSION.format("dendrofx", dendrofx.__version__)),
        ({"torch": "0.0.1"}, VERSION.format("torch", torch.__version__)),
        ({"cpu": "Z80"}, MACHINE.format(f"Z80, {here.cores}", cores, "")),
        ({"cores": 999}, MACHINE.format(f"{here.cpu}, 999", cores, "")),
        (
            {"capability": replace(capability(), vnni=not vnni)},
            MACHINE.format(cores, cores, f"; vnni {vnni} here, {not vnni} there"),
        ),
    ):
        assert refused("mlp", replace(made("mlp").plan, origin=replace(here, **changes))) == message
    other_threads = replace(made("mlp").plan, origin=replace(here, threads=64))
    assert made("mlp").replayed(other_threads).plan.routed, "threads are a setting"


@pytest.mark.parametrize(("entries", "message"), [
    (lambda e: [e, replace(e, name="blocks.7")], "the plan routes ['blocks.7'], which the model does not have; it has ['0..2']"),
    (lambda e: [replace(e, gate=None)], "the plan routes '0..2' without a light form or a gate"),
    (lambda e: [replace(e, light=LowRank(4000))], "the plan's LowRank(rank=4000, basis='weight') no longer fits site '0..2': "),
])  # fmt: skip
def test_sites_that_the_model_does_not_have_like_this(
    entries: Callable[[SitePlan], list[SitePlan]], message: str
) -> None:
    plan = made("mlp").plan
    assert refused("mlp", replace(plan, sites=entries(*plan.sites))).startswith(message)


# ------------------------------------------------------------------------------------------------------ certificates


@pytest.mark.parametrize(("changes", "message"), [
    ({"alpha": 0.01}, "budget flip at most 1 %, 90 % confidence there, flip at most 2 %, 90 % confidence"),
    ({"delta": 0.01}, "budget flip at most 2 %, 99 % confidence there, flip at most 2 %, 90 % confidence"),
    ({"metric": "cosine"}, "budget cosine at most 2 %"),
    ({"n": 100_000}, "n 100000 there, "),
    ({"losses": 0.5}, "does not follow from its figures: 0.5 lost of "),
    ({"p_value": 1e-9}, "does not follow from its figures: "),
    ({"test": "hoeffding-bentkus"}, "does not follow from its figures: "),
    ({"thresholds": {"model": 0.0}}, "thresholds {'model': 0.0} there, {'model': "),
    ({"thresholds": {}}, "thresholds {} there, {'model': "),
    ({"step": 99}, "does not follow from its figures: "),
    ({"easy_share": 7.0}, "does not follow from its figures: "),
    ({"model": "m"}, "model m there, "),
    ({"module": "m"}, "the plan was replayed, but the certificate is for another module: fingerprint m there, "),
    ({"inputs": "i"}, "inputs i there, "),
    ({"machine": "Z80"}, "machine Z80 there, "),
    ({"torch": "1.7"}, "torch 1.7 there, "),
])  # fmt: skip
def test_a_forged_certificate_is_not_replayed(changes: dict[str, Any], message: str) -> None:
    plan = made("cascade").plan
    assert plan.certificate is not None
    assert message in refused("cascade", replace(plan, certificate=replace(plan.certificate, **changes)))


def test_losses_that_are_forged_with_their_p_value_are_counted_again() -> None:
    plan = made("cascade").plan
    shown = plan.certificate
    assert shown is not None
    fewer = shown.losses - 1
    forged = replace(shown, losses=fewer, p_value=binomial_p(fewer, shown.n, shown.alpha))
    said = refused("cascade", replace(plan, certificate=forged))
    assert f"it says that {fewer:g} of {shown.n} test samples were lost, and here it is " in said


@pytest.mark.parametrize("changes", [{"certificate": None}, {"budget": ""}, {"certificate": None, "budget": ""}])
def test_a_plan_that_lost_its_certificate_or_budget_is_not_replayed(changes: dict[str, Any]) -> None:
    assert refused("cascade", replace(made("cascade").plan, **changes))
