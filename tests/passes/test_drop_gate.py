"""Sites without gate and full branch: every row is light, and what a gate would have sent to the full branch raises."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

import dendrofx
from dendrofx import InputError, LearnedGate, NoGate, PassError
from dendrofx.passes import DropGate
from dendrofx.rewriting.counted import graph_names
from tests.asked import asked
from tests.made import Made, made
from tests.round_trips import ROUND_TRIPS, assert_same


@pytest.fixture(scope="module")
def light() -> Made:
    return made("no-gate")


def usual(light: Made) -> Tensor:
    return light.rows[:20]


def test_it_computes_what_every_row_light_does_and_holds_neither_gate_nor_full_branch(light: Made) -> None:
    gated = copy.deepcopy(light.module.meta["dendrofx.recipe"]).build({})
    dendrofx.set_tolerances(gated, dict.fromkeys(dendrofx.tolerances(gated), 1.0))
    assert torch.equal(light.module(usual(light)), gated(usual(light)))
    inside = {name.rpartition(".")[2] for name, _ in light.module.named_modules()}
    assert "light" in inside
    assert not inside & {"gate", "full"}
    assert not any("split_rows" in str(n.target) for n in light.module.graph.nodes)


@pytest.mark.parametrize("way", ["copied", "pickled", "torch.save", "scripted", "frozen"])
def test_it_travels(light: Made, way: str) -> None:
    if way in ROUND_TRIPS and way not in ("scripted", "frozen"):
        other = ROUND_TRIPS[way](light.module)
    else:
        other = dendrofx.script(light.module, freeze=way == "frozen")
    assert_same(other, light.module, (usual(light),), (usual(light)[:1],))


def test_it_counts_every_row_as_light(light: Made) -> None:
    _, counts = light.module.forward_counted(usual(light))
    assert set(counts) == set(graph_names(light.module)) == {s.name for s in light.plan.routed}
    for of_site in counts.values():
        assert (of_site["rows"], of_site["hard_rows"], of_site["light_rows"]) == (20, 0, 20)
        assert of_site["full_macs"] == of_site["gate_macs"] == 0
        assert 0 < of_site["light_macs"] < of_site["original_macs"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_row_that_is_not_finite_raises_with_its_number(light: Made, bad: float, frozen: bool) -> None:
    module = dendrofx.script(light.module, freeze=True) if frozen else light.module
    x = usual(light).clone()
    x[7, 3] = bad
    with pytest.raises((RuntimeError, torch.jit.Error), match=r"row 7 is not finite, and site '.*' has no full branch"):
        module(x)
    assert module(1e30 * usual(light)[:2].sign()).shape[0] == 2  # their sum overflows, they are finite


def test_tolerance_0_asks_for_a_branch_that_is_not_there(light: Made) -> None:
    module = copy.deepcopy(light.module)
    dendrofx.set_tolerances(module, dict.fromkeys(dendrofx.tolerances(module), 0.0))
    with pytest.raises(RuntimeError, match="has no full branch, and its tolerance is 0"):
        module(usual(light))


def test_its_plan_is_replayed(light: Made) -> None:
    assert torch.equal(light.replayed()(usual(light)), light.module(usual(light)))


def test_optional_leaves_a_gate_out_where_that_is_cheaper_within_the_budget(
    light: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dendrofx.search.estimates.TIE", 0.0)  # else one that is as cheap and has skill is kept
    monkeypatch.setattr("dendrofx.search.choose.default_gates", lambda *_: [LearnedGate()])  # which takes multiply-adds
    options: dict[str, Any] = {**light.options, "gate": "optional"}
    found = dendrofx.transform(light.model, **asked(**options, tune_seconds=0))
    assert found.plan.routed
    assert found.plan.deviation is not None
    assert found.plan.deviation <= 0.05
    assert any(isinstance(s.gate, NoGate) for s in found.plan.routed)


def test_a_cascade_keeps_its_full_model() -> None:
    options = made("cascade").options
    with pytest.raises(InputError, match="a cascade keeps its full model"):
        dendrofx.transform(made("cascade").model, **asked(**{**options, "gate": "optional"}))


def test_only_routed_sites_have_a_gate_to_leave_out(light: Made) -> None:
    with pytest.raises(PassError, match=r"sites \['nowhere'\] are not routed"):
        DropGate(("nowhere",))(copy.deepcopy(light.module))
