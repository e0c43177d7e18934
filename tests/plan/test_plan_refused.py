"""Plans that belong elsewhere, or cannot be read: each refused by name."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dendrofx
from dendrofx import LearnedGate, Plan, PlanError
from dendrofx.guarantee import binomial_p
from dendrofx.machine.capability import capability
from dendrofx.plan.file import from_json
from dendrofx.plan.origin import Origin
from dendrofx.rewriting.module import RoutedModule
from tests.models import compressible
from tests.recorded import LOW, rows
from tests.search.cascade.models import batches as samples
from tests.search.cascade.models import certified, classifier

AGAIN = "Pass redecide=True to decide anew on this machine"


def batches() -> list[Tensor]:
    return [rows(60, i) for i in range(10)]


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return compressible()


@pytest.fixture(scope="module")
def plan() -> Plan:
    made = dendrofx.transform(
        model(), calibration=batches(), light=LOW, gate=LearnedGate(), max_deviation=0.05, tune_seconds=0
    )
    assert made.plan.routed
    return made.plan


def refused(plan: Plan, given: nn.Module | None = None, data: list[Tensor] | None = None, **options: Any) -> str:
    with pytest.raises(PlanError) as error:
        dendrofx.transform(model() if given is None else given, calibration=data or batches(), plan=plan, **options)
    return str(error.value)


def edited(plan: Plan, **changes: Any) -> Plan:
    assert plan.origin is not None
    return replace(plan, origin=replace(plan.origin, **changes))


# -------------------------------------------------------------------------------------------------- of another origin


@pytest.mark.parametrize("redecide", [False, True])
def test_another_model(plan: Plan, redecide: bool) -> None:
    other = model()
    with torch.no_grad():
        next(other.parameters())[3, 5] += 1e-6
    message = refused(plan, other, redecide=redecide)
    assert plan.origin is not None
    assert message.startswith(f"the plan was made for another model: fingerprint {plan.origin.model} there, ")
    assert message.endswith(" here")


@pytest.mark.parametrize("change", ["a value", "the order", "one batch less"])
def test_other_calibration_data(plan: Plan, change: str) -> None:
    data = batches()
    if change == "a value":
        data[4][7, 7] += 1e-3
    data = data[::-1] if change == "the order" else data[:-1] if change == "one batch less" else data
    message = refused(plan, data=data)
    assert message.startswith("the plan was made with other calibration data: fingerprint ")
    assert message.endswith("Light branches and gates are fitted to it again: pass the same batches in the same order")


def test_no_data_where_there_was_some_and_the_other_way_round(plan: Plan) -> None:
    with pytest.raises(
        PlanError, match=r"the plan was made with other calibration data: fingerprint .* there, None here"
    ):
        dendrofx.transform(model(), plan=plan)
    without = dendrofx.transform(model(), tune_seconds=0).plan
    assert "fingerprint None there, " in refused(without)


@pytest.mark.parametrize("what", ["dendrofx", "torch"])
def test_another_version(plan: Plan, what: str) -> None:
    now = {"dendrofx": dendrofx.__version__, "torch": torch.__version__}[what]
    message = refused(edited(plan, **{what: "0.0.1"}))
    assert message == f"the plan was made by another version: {what} 0.0.1 there, {now} here. {AGAIN}"


def test_another_machine(plan: Plan) -> None:
    assert plan.origin is not None
    here: Origin = plan.origin
    start = "the plan was made on another machine: "
    message = refused(edited(plan, cpu="Z80"))
    assert message == (
        f"{start}Z80, {here.cores} cores there, {here.cpu}, {here.cores} cores here. Its times do not hold here. {AGAIN}"
    )
    assert refused(edited(plan, cores=999)).startswith(f"{start}{here.cpu}, 999 cores there, ")
    vnni = here.capability.vnni
    message = refused(edited(plan, capability=replace(capability(), vnni=not vnni)))
    assert f" cores here; vnni {vnni} here, {not vnni} there. Its times do not hold here." in message
    again = dendrofx.transform(model(), calibration=batches(), plan=edited(plan, threads=64))
    assert again.plan.routed, "threads are a setting"


@pytest.mark.parametrize("redecide", [False, True])
def test_no_origin(plan: Plan, redecide: bool) -> None:
    message = refused(replace(plan, origin=None), redecide=redecide)
    assert message == "the plan does not say where it was made: take one that transform returned"


def test_a_site_that_the_model_does_not_have(plan: Plan) -> None:
    (entry,) = plan.sites
    assert refused(replace(plan, sites=[entry, replace(entry, name="blocks.7")])) == (
        "the plan routes ['blocks.7'], which the model does not have; it has ['0..2']"
    )


def test_a_site_that_lost_its_forms(plan: Plan) -> None:
    (entry,) = plan.sites
    message = "the plan routes '0..2' without a light form or a gate"
    assert refused(replace(plan, sites=[replace(entry, gate=None)])) == message
    unfit = refused(replace(plan, sites=[replace(entry, light=dendrofx.LowRank(4000))]))
    assert unfit.startswith("the plan's LowRank(rank=4000, basis='weight') no longer fits site '0..2': ")


# ------------------------------------------------------------------------------------------------------ no plan at all


def changed(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda value: {**value, **changes}


def without(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda value: {k: v for k, v in value.items() if k != name}


def with_site(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda value: {**value, "sites": [{**value["sites"][0], **changes}]}


@pytest.mark.parametrize(("change", "message"), [
    (changed(format=1), "not a dendrofx plan of format 4: its format is 1"),
    (without("format"), "not a dendrofx plan of format 4: its format is None"),
    (lambda value: [value], "holds no plan, but a list"),
    (without("sites"), "the plan cannot be read: sites is missing: it must be a list"),
    (without("max_deviation"), "the plan cannot be read: max_deviation is missing: it must be a number"),
    (changed(later=1), "the plan cannot be read: later is no field of Plan, which has sites, "),
    (changed(sites=5), "the plan cannot be read: sites must be a list, got 5"),
    (changed(samples=5), "the plan cannot be read: samples must be a list or null, got 5"),
    (changed(models=[{}]), "the plan cannot be read: models[0].batch is missing: it must be a whole number"),
    (changed(origin={}), "the plan cannot be read: origin.dendrofx is missing: it must be a string"),
    (changed(origin="here"), "the plan cannot be read: origin must be an object with the fields of Origin or null, got "),
    (changed(max_deviation=-0.1), "the plan cannot be read: max_deviation must be at least 0, got -0.1"),
    (with_site(colour="red"), "the plan cannot be read: sites[0].colour is no field of SitePlan, which has name, "),
    (with_site(status="lost"), 'sites[0].status must be "routed" or "exact" or "light" or "refused", got '),
    (with_site(tolerance=True), "the plan cannot be read: sites[0].tolerance must be a number or null, got true"),
    (with_site(tolerance=float("nan")), "the plan cannot be read: sites[0].tolerance must be a number or null, got NaN"),
    (with_site(tolerance=-1), "the plan cannot be read: sites[0].tolerance must be at least 0, got -1"),
    (with_site(light="LowRank(rank=8)"), "the plan cannot be read: sites[0].light must be a light form or null, got "),
    (with_site(light={"form": "Quantum"}), "sites[0].light: unknown form 'Quantum': this version has AlwaysFull, "),
    (with_site(light={"form": "LowRank", "rank": 0}), "the plan cannot be read: sites[0].light: rank must be "),
    (with_site(light={"form": "LearnedGate"}), "the plan cannot be read: sites[0].light must be a light form, got LearnedGate"),
    (with_site(gate={"form": "LearnedGate", "depth": 3}), "sites[0].gate.depth is no field of LearnedGate, which has "),
])  # fmt: skip
def test_json_that_is_no_plan(change: Callable[[Any], Any], message: str, plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(json.dumps(change(plan.to_json())), encoding="utf-8")
    with pytest.raises(PlanError) as error:
        Plan.load(tmp_path / "plan.json")
    assert message in str(error.value)


@pytest.mark.parametrize(("content", "message"), [
    (b"", "is not JSON: "),
    (b"{", "is not JSON: "),
    (b"\xff\xfe", "is not JSON: "),
    (b"null", "holds no plan, but a NoneType"),
    (None, "cannot read the plan "),
])  # fmt: skip
def test_files_that_are_no_plan(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PlanError) as error:
        Plan.load(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "none.json", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(PlanError) as error:
            Plan.load(path)
        assert str(error.value) == f"cannot read the plan {path}: {why}"


# ------------------------------------------------------------------------------------------------------ edited by hand

WRONG: dict[type, list[Any]] = {
    bool: ["true", 1, None, [], {}],
    int: ["7", True, 1.5, [], {}, math.nan, 2**63],
    float: ["much", True, [], {}, math.nan],
    str: [7, True, None, [], {}],
    list: ["x", 7, True, {}],
    dict: ["x", 7, True, []],
    type(None): [{"no": 1}, True],
}


def places(value: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """`(path, container, key)` of every value in JSON."""
    at = list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    for key, inner in at:
        here = f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}" if path else str(key)
        yield here, value, key
        yield from places(inner, here)


@pytest.fixture(scope="module")
def shown() -> RoutedModule:
    return certified("model")  # type: ignore[no-any-return]


def replayed(plan: Plan) -> RoutedModule:
    torch.manual_seed(1)  # of `certified`
    return dendrofx.transform(classifier(), calibration=samples(), plan=plan)


@pytest.mark.parametrize("kind", ["block", "certified"])
def test_any_field_of_a_wrong_type_is_named(kind: str, plan: Plan, shown: RoutedModule) -> None:
    original = plan if kind == "block" else shown.plan
    value = json.loads(json.dumps(original.to_json()))
    tried = 0
    for path, container, key in list(places(value)):
        kept = container[key]
        for wrong in WRONG[type(kept)]:
            container[key] = wrong
            if key == "assumption" or (path, wrong) == (
                "origin.data",
                None,
            ):  # which is read by people, or may be missing
                assert replace(from_json(Plan, value), origin=original.origin) == original
                continue
            with pytest.raises(PlanError) as error:
                from_json(Plan, value)
            assert str(key) in str(error.value), (path, wrong, str(error.value))
            assert len(str(error.value)) < 300, str(error.value)
            tried += 1
        container[key] = kept
    assert tried > 200
    assert from_json(Plan, value) == original


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
def test_a_forged_certificate_is_not_replayed(changes: dict[str, Any], message: str, shown: RoutedModule) -> None:
    assert shown.plan.certificate is not None
    forged = replace(shown.plan, certificate=replace(shown.plan.certificate, **changes))
    with pytest.raises(PlanError) as error:
        replayed(forged)
    assert message in str(error.value)


def test_losses_that_are_forged_with_their_p_value_are_counted_again(shown: RoutedModule) -> None:
    made = shown.plan.certificate
    assert made is not None
    fewer = made.losses - 1
    forged = replace(made, losses=fewer, p_value=binomial_p(fewer, made.n, made.alpha))
    with pytest.raises(PlanError, match=rf"it says that {fewer:g} of {made.n} test samples were lost, and here it is "):
        replayed(replace(shown.plan, certificate=forged))


def test_a_certified_plan_is_replayed(shown: RoutedModule) -> None:
    again = replayed(from_json(Plan, shown.plan.to_json()))
    assert again.plan == shown.plan
    assert shown.plan.cascade is not None
    for changes in ({"certificate": None}, {"budget": ""}, {"certificate": None, "budget": ""}):
        with pytest.raises(PlanError):
            replayed(replace(shown.plan, **changes))
