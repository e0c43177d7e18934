"""Plans with dead rows: what their file brings back, and the budget of what is routed on live rows."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dendrofx
from dendrofx import LowRank, Plan, PlanError
from dendrofx.plan.entries import DeadRowsPlan
from tests.asked import asked
from tests.check import OTHER_GEMM
from tests.padded import MLP, OPTIONS, Rows, assert_lossless, batches, inputs, live, replayed, rows_model, statuses

LIMIT = 0.05


def deviations(model: nn.Module, made: nn.Module, given: dict[str, Tensor]) -> Tensor:
    """Of each sample, on its live rows."""
    alive = (given["mask"] != 0)[..., None]
    wanted, got = model(**given) * alive, made(**given) * alive
    far: Tensor = (got - wanted).flatten(1).norm(dim=1) / wanted.flatten(1).norm(dim=1)
    return far


EXAMPLE_LENGTHS = [9, 4, 7]


@cache
def made(kind: str) -> tuple[Rows, Any, dict[str, Any]]:
    """A model, what became of it on live rows, "live" alone or "routed", and what it was made from."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "live":
            model, example = rows_model(), inputs(EXAMPLE_LENGTHS)
            return model, live(model, example), {"example_inputs": example}
        model, data = rows_model(0.3), batches(20)
        options = {**OPTIONS, "light": LowRank(16), "budget": LIMIT, "tune_seconds": 0, "decide": False}
        return model, dendrofx.transform(model, calibration=data, **asked(**options)), {"calibration": data}


# --------------------------------------------------------------------------------------------------------- replaying


@pytest.mark.parametrize("kind", ["live", "routed"])
def test_a_replay_is_the_same(kind: str, tmp_path: Path) -> None:
    model, routed, source = made(kind)
    assert (statuses(routed.plan)[MLP] == "routed") is (kind == "routed")
    again = replayed(model, routed, tmp_path, **source)
    if kind == "live":
        given = inputs([3, 9])
        assert_lossless(model, again, given, given["mask"] != 0)


def test_a_replay_takes_inputs_to_verify_the_mask_on() -> None:
    model, routed, _ = made("live")
    with pytest.raises(dendrofx.InputError, match=r"^dead_rows='mask' is verified on inputs"):
        dendrofx.transform(model, plan=routed.plan)


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
    model, routed, source = made("live")
    plan = routed.plan
    there = replace(
        plan, origin=replace(plan.origin, cpu="Z80"), dead_rows=DeadRowsPlan("mask", "refused", "slow there")
    )
    with pytest.raises(PlanError, match="made on another machine"):
        dendrofx.transform(model, plan=there, **asked(**source))
    again = dendrofx.transform(model, plan=there, **asked(**source, redecide=True, tune_seconds=0)).plan
    assert again.dead_rows == plan.dead_rows
    assert again.max_deviation == 0


# ------------------------------------------------------------------------------------------------------- the budget


def test_sites_that_are_routed_on_live_rows_keep_the_budget_on_other_samples() -> None:
    model, routed, _ = made("routed")
    assert routed.plan.dead_rows.status == "live"
    assert 0 < routed.plan.deviation <= LIMIT
    far = torch.cat([deviations(model, routed, given) for given in batches(20)])
    assert 0 < float(far.mean()) <= LIMIT


def test_routed_sites_see_live_rows_alone() -> None:
    model, routed, _ = made("routed")
    given = inputs([9, 4, 4])  # 17: the site runs on 20, a number that kernels like
    output, counts = routed.forward_counted(**given)
    scripted = dendrofx.script(routed).forward_counted(**given)[1]
    assert scripted == counts
    assert counts["dead rows"]["live_rows"] == counts[MLP]["rows"] == 17
    assert counts[MLP]["original_macs"] % 20 == 0  # which it does execute
    (site,) = dendrofx.explain(routed, given).sites
    assert counts[MLP]["hard_rows"] == int(site.hard.sum())
    other = {**given, "x": torch.where((given["mask"] == 0)[..., None], 1e4, given["x"])}
    assert torch.equal(routed(**other), output)
    torch.testing.assert_close(dendrofx.script(routed)(**given), output, **OTHER_GEMM)
    kept = {name: float(t) for name, t in dendrofx.tolerances(routed).items()}
    try:
        dendrofx.set_tolerances(routed, dict.fromkeys(kept, 0.0))
        assert_lossless(model, routed, given, given["mask"] != 0)
    finally:
        dendrofx.set_tolerances(routed, kept)
