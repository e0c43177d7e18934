"""Plans with dead rows: what their file brings back, and the budget of what is routed on live rows."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dendrofx
from dendrofx import LowRank, Plan, PlanError
from dendrofx.plan.entries import DeadRowsPlan
from tests.check import OTHER_GEMM
from tests.padded import MLP, OPTIONS, assert_lossless, batches, inputs, live, replayed, rows_model, statuses


def deviations(model: nn.Module, made: nn.Module, given: dict[str, Tensor]) -> Tensor:
    """Of each sample, on its live rows."""
    alive = (given["mask"] != 0)[..., None]
    wanted, got = model(**given) * alive, made(**given) * alive
    far: Tensor = (got - wanted).flatten(1).norm(dim=1) / wanted.flatten(1).norm(dim=1)
    return far


# --------------------------------------------------------------------------------------------------------- replaying


def test_live_rows_alone_are_replayed(tmp_path: Path) -> None:
    model, example = rows_model(), inputs([9, 4, 7])
    made = live(model, example)
    again = replayed(model, made, tmp_path, example_inputs=example)
    given = inputs([3, 9])
    assert_lossless(model, again, given, given["mask"] != 0)


def test_routed_sites_on_live_rows_are_replayed(tmp_path: Path) -> None:
    model, data = rows_model(0.3), batches()
    made = dendrofx.transform(model, calibration=data, max_deviation=0.05, tune_seconds=0, decide=False, **OPTIONS)
    assert statuses(made.plan)[MLP] == "routed"
    replayed(model, made, tmp_path, calibration=data)


def test_a_replay_takes_inputs_to_verify_the_mask_on() -> None:
    model = rows_model()
    plan = live(model, inputs([9, 4])).plan
    with pytest.raises(dendrofx.InputError, match=r"^dead_rows='mask' is verified on inputs"):
        dendrofx.transform(model, plan=plan)


@pytest.mark.parametrize("dead_rows", [
    None, DeadRowsPlan("mask", "live", "all of it"), DeadRowsPlan("~padding", "refused", "it did not win"),
])  # fmt: skip
def test_what_became_of_dead_rows_survives_as_json(dead_rows: DeadRowsPlan | None, tmp_path: Path) -> None:
    plan = Plan([], 0.0, dead_rows=dead_rows)
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan
    assert (dead_rows is not None) is ("dead rows of" in str(plan))
    assert dead_rows is None or str(dead_rows) in str(plan).splitlines()


@pytest.mark.parametrize("dead_rows", [{"mask": "mask"}, "mask", {"mask": "m", "status": "live", "reason": "", "x": 1}])
def test_dead_rows_that_cannot_be_read(dead_rows: Any, tmp_path: Path) -> None:
    value = {**Plan([], 0.0).to_json(), "dead_rows": dead_rows}
    (tmp_path / "plan.json").write_text(json.dumps(value), encoding="utf-8")
    with pytest.raises(PlanError, match=r"^the plan cannot be read: dead_rows.*"):
        Plan.load(tmp_path / "plan.json")


def test_decided_anew_elsewhere_dead_rows_are_tried_again() -> None:
    model, example = rows_model(), inputs([9, 4])
    plan = live(model, example, "mask").plan
    assert plan.origin is not None
    there = replace(
        plan, origin=replace(plan.origin, cpu="Z80"), dead_rows=DeadRowsPlan("mask", "refused", "slow there")
    )
    with pytest.raises(PlanError, match="made on another machine"):
        dendrofx.transform(model, example, plan=there)
    again = dendrofx.transform(model, example, plan=there, redecide=True, tune_seconds=0).plan
    assert again.dead_rows == plan.dead_rows
    assert again.max_deviation == 0


# ------------------------------------------------------------------------------------------------------- the budget


def test_sites_that_are_routed_on_live_rows_keep_the_budget_on_other_samples() -> None:
    model, limit = rows_model(0.3), 0.05
    made = dendrofx.transform(
        model,
        calibration=batches(20),
        max_deviation=limit,
        tune_seconds=0,
        decide=False,
        **{**OPTIONS, "light": LowRank(16)},
    )
    (site, _) = made.plan.sites
    assert site.status == "routed"
    assert made.plan.dead_rows is not None
    assert made.plan.dead_rows.status == "live"
    assert made.plan.deviation is not None
    assert 0 < made.plan.deviation <= limit
    far = torch.cat([deviations(model, made, given) for given in batches(20)])
    assert 0 < float(far.mean()) <= limit


def test_routed_sites_see_live_rows_alone() -> None:
    model = rows_model(0.3)
    made = dendrofx.transform(
        model, calibration=batches(), max_deviation=0.05, tune_seconds=0, decide=False, sites=MLP, **OPTIONS
    )
    given = inputs([9, 3, 4])
    output, counts = made.forward_counted(**given)
    assert counts["dead rows"]["live_rows"] == 16
    assert counts[MLP]["rows"] == 16
    other = {**given, "x": torch.where((given["mask"] == 0)[..., None], 1e4, given["x"])}
    assert torch.equal(made(**other), output)
    dendrofx.set_tolerances(made, dict.fromkeys(dendrofx.tolerances(made), 0.0))
    assert_lossless(model, made, given, given["mask"] != 0)
    torch.testing.assert_close(dendrofx.script(made)(**given), made(**given), **OTHER_GEMM)
