"""Dead rows in decisions, on recorded times: what wins on live rows, and what is refused."""

from pathlib import Path

import pytest
import torch
from torch import nn

import dendrofx
from dendrofx import Prepacked
from dendrofx.plan.entries import DeadRowsPlan
from dendrofx.runtime.packed import PackedLinear
from tests.asked import asked
from tests.check import OTHER_GEMM
from tests.padded import (
    HARD,
    HEAD,
    MLP,
    OPTIONS,
    assert_lossless,
    batches,
    inputs,
    replayed,
    rows_model,
    statuses,
    use_timer,
)
from tests.recorded import FAST, SLOW, Recorded
from tests.round_trips import reloaded

# --------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.slow
@pytest.mark.parametrize("max_deviation", [0, 0.1])
def test_where_live_rows_do_not_win_the_original_comes_back(
    max_deviation: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    timer = use_timer(monkeypatch, Recorded(races=lambda sites, n: SLOW))
    model, data = rows_model(), batches()
    made = dendrofx.transform(model, calibration=data, budget=max_deviation, **asked(**OPTIONS))
    assert made.plan.dead_rows == DeadRowsPlan(
        "mask",
        "refused",
        "on live rows alone the model did not win: 0.50 x the scripted original at batch 8 (10 ms), min_speedup is 1.05",
    )
    assert set(statuses(made.plan).values()) == {"refused"}
    assert [sites for sites, _ in timer.raced] == ([[]] if max_deviation == 0 else [[MLP], [], [MLP]])
    given = inputs(HARD)
    assert torch.equal(made(**given), model(**given)), "dead positions too"
    again = replayed(model, made, tmp_path, calibration=data)
    assert torch.equal(again(**given), model(**given))


@pytest.mark.slow
def test_where_only_the_routed_site_does_not_win_live_rows_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    use_timer(monkeypatch, Recorded(races=lambda sites, n: SLOW if sites else FAST))
    model, given = rows_model(), inputs(HARD[:3])
    made = dendrofx.transform(model, calibration=batches(), budget=0.1, **asked(**OPTIONS))
    assert made.plan.dead_rows is not None
    assert made.plan.dead_rows.status == "live"
    assert statuses(made.plan) == {MLP: "refused", HEAD: "refused"}
    assert_lossless(model, made, given, given["mask"] != 0)


# ------------------------------------------------------------------------------------------------------ exact forms


def packed_linears(module: nn.Module) -> int:
    return sum(isinstance(m, PackedLinear) for m in module.modules())


@pytest.mark.slow
def test_exact_forms_are_taken_where_they_win_and_replayed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mlp = {"Prepacked()": 5.0, "Transposed()": 6.0}.__getitem__
    use_timer(monkeypatch, Recorded(lambda shape, n: {"packed": mlp if shape == "64 -> 256 -> 64" else 12.0}))
    model, example, given = rows_model(), inputs([9, 4, 7]), inputs([3, 9])
    made = dendrofx.transform(model, example, dead_rows="mask", budget=0)
    assert statuses(made.plan) == {MLP: "exact", HEAD: "refused"}
    site = made.plan.sites[0]
    assert (site.full, site.light, site.gate, site.block_ms, site.predicted_ms) == (Prepacked(), None, None, 10.0, 5.0)
    assert site.reason.startswith("5 ms as Prepacked(), 10 as it was (20 rows)")
    assert packed_linears(made) == 2
    assert_lossless(model, made, given, given["mask"] != 0)
    again = replayed(model, made, tmp_path, example_inputs=example)
    assert packed_linears(again) == 2
    torch.testing.assert_close(reloaded(dendrofx.script(made))(**given), made(**given), **OTHER_GEMM)


@pytest.mark.slow
def test_an_exact_form_beside_a_routed_site_is_replayed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_timer(monkeypatch, Recorded(lambda shape, n: {"packed": 5.0, "light": 1.0}))
    model, data = rows_model(), batches()
    made = dendrofx.transform(model, calibration=data, budget=0.1, **asked(**OPTIONS))
    assert statuses(made.plan) == {MLP: "routed", HEAD: "exact"}
    replayed(model, made, tmp_path, calibration=data)


def test_exact_forms_that_do_not_win_on_the_whole_model_go_and_live_rows_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    timer = Recorded(lambda shape, n: {"packed": 5.0}, lambda sites, n: SLOW if len(timer.raced) == 1 else FAST)
    use_timer(monkeypatch, timer)
    made = dendrofx.transform(rows_model(), inputs([9, 4, 7]), dead_rows="mask", budget=0)
    assert len(timer.raced) == 2
    assert made.plan.dead_rows is not None
    assert made.plan.dead_rows.status == "live"
    assert set(statuses(made.plan).values()) == {"refused"}
    assert packed_linears(made) == 0
