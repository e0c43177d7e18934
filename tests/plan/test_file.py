"""Plans as files: whatever a plan holds survives, as JSON that any reader takes; what is no plan is refused by field."""

import json
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dendrofx import EnergyGate, Int8, LearnedGate, LowRank, Plan, PlanError, Prepacked, Pruned, SitePlan
from dendrofx.gates.form import GateForm
from dendrofx.light.exits import Exit
from dendrofx.light.form import LightForm
from dendrofx.light.routed_blocks import RoutedBlocks
from dendrofx.plan.file import from_json
from dendrofx.plan.plan import CascadePlan
from tests.made import made

SOME: dict[Any, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    str: st.text(max_size=5),
    NoneType: st.none(),
    LightForm: st.sampled_from(
        [LowRank(8, "input", Int8(7, 0.5)), Pruned(0.5, 1e-3), Pruned(0.9, math.inf), Prepacked()]
    ),
    GateForm: st.sampled_from([LearnedGate(reads="scales"), EnergyGate()]),
    RoutedBlocks: st.just(RoutedBlocks(0.1)),
    Exit: st.just(Exit(("stem", "blocks.0"))),
}


def some(kind: Any, least: int | None = None, **known: Any) -> st.SearchStrategy[Any]:
    """Values of a type, as the fields of a plan have them; `known` are those of a dataclass's fields."""
    args = get_args(kind)
    if kind is float:
        return st.floats(min_value=least, allow_nan=False)
    if kind is int:
        return st.integers(1 - 2**63 if least is None else least, 2**63 - 1)
    if kind in SOME:
        return SOME[kind]
    if get_origin(kind) is Literal:
        return st.sampled_from(args)
    if get_origin(kind) in (list, tuple):
        found = st.lists(some(args[0], least), max_size=3)
        return found if get_origin(kind) is list else found.map(tuple)
    if get_origin(kind) is dict:
        return st.dictionaries(some(args[0]), some(args[1], least), max_size=3)
    if args:
        return st.one_of(*(some(a, least) for a in args))
    hints = get_type_hints(kind)
    others = {f.name: some(hints[f.name], f.metadata.get("least")) for f in fields(kind) if f.name not in known}
    return st.builds(kind, **known, **others)


FLAT = some(Plan, cascade=st.none())
PLANS = some(Plan, cascade=st.none() | some(CascadePlan, light_plan=st.none() | FLAT, full_plan=st.none() | FLAT))


def no_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


@settings(derandomize=True, deadline=None, max_examples=60)
@given(PLANS)
def test_whatever_a_plan_holds_survives_as_plain_json(plan: Plan) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.json"
        path.write_text("old", encoding="utf-8")
        plan.save(path)
        assert [p.name for p in Path(folder).iterdir()] == ["plan.json"]
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=no_constant)
        assert value == json.loads(json.dumps(plan.to_json()))
        assert Plan.load(path) == Plan.load(str(path)) == plan


def test_how_forms_are_written() -> None:
    entry = SitePlan(
        "a", "routed", "why", light=Pruned(0.5, math.inf, Int8(7)), gate=LearnedGate(), full=Pruned(0.5, 1e-3)
    )
    value = Plan([entry], 0.1).to_json()
    assert value["format"] == 4
    (site,) = value["sites"]
    assert (site["light"]["ridge"], site["full"]["ridge"]) == ("inf", 1e-3)
    assert site["light"]["precision"] == {"form": "Int8", "weight_bits": 7, "smooth": 0.0}


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
    (with_site(light={"form": "Quantum"}), "sites[0].light: unknown form 'Quantum': this version has BFloat16, "),
    (with_site(light={"form": "LowRank", "rank": 0}), "the plan cannot be read: sites[0].light: rank must be "),
    (with_site(light={"form": "LearnedGate"}), "the plan cannot be read: sites[0].light must be a light form, got LearnedGate"),
    (with_site(gate={"form": "LearnedGate", "depth": 3}), "sites[0].gate.depth is no field of LearnedGate, which has "),
])  # fmt: skip
def test_json_that_is_no_plan(change: Callable[[Any], Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(json.dumps(change(made("mlp").plan.to_json())), encoding="utf-8")
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


@pytest.mark.parametrize("kind", ["mlp", "cascade"])
def test_any_field_of_a_wrong_type_is_named(kind: str) -> None:
    plan = made(kind).plan
    value = json.loads(json.dumps(plan.to_json()))
    tried = 0
    for path, container, key in list(places(value)):
        kept = container[key]
        for wrong in WRONG[type(kept)]:
            container[key] = wrong
            if key == "assumption" or (path, wrong) == ("origin.data", None):  # is read by people, or may be missing
                assert replace(from_json(Plan, value), origin=plan.origin) == plan
                continue
            with pytest.raises(PlanError) as error:
                from_json(Plan, value)
            assert str(key) in str(error.value), (path, wrong, str(error.value))
            assert len(str(error.value)) < 300, str(error.value)
            tried += 1
        container[key] = kept
    assert tried > 200
    assert from_json(Plan, value) == plan
