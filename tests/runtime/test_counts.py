"""What a routed site counts, against counts by hand, and which rows it splits off."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dendrofx.gates import EnergyGate, LearnedGate, OracleGate, RandomGate
from dendrofx.graph.block import row_macs
from dendrofx.graph.capture import capture
from dendrofx.light import LowRank
from dendrofx.rewriting.module import RoutedModule
from dendrofx.rewriting.rewrite import rewrite
from dendrofx.runtime.live import LiveRows
from dendrofx.runtime.route_counts import count_rows, of_live_rows
from dendrofx.runtime.routing import MACS_PER_MOVED_VALUE, easy_only_from, split_rows
from dendrofx.values.counts import executed_macs
from dendrofx.values.inputs import Inputs
from dendrofx.values.measure import model_macs
from tests.models import Mlp
from tests.runtime.routes import Pair, every_pair, force_easy_only, made, median, sample, scores, set_all


def hand_counts(module: RoutedModule, rows: int, hard: int, light_rows: int, score: Tensor) -> dict[str, int]:
    part = module.routed.fc1_fc2
    block, gate, light = 16 * 32 + 32 * 8, row_macs(part.gate), row_macs(part.light.light)
    return {
        "rows": rows,
        "hard_rows": hard,
        "near_rows": 0,
        "light_rows": light_rows,
        "largest_score_millionths": int(1e6 * min(float(score[score.isfinite()].max()), 999999999999.5)),
        "gate_macs": rows * gate,
        "light_macs": light_rows * light,
        "full_macs": hard * block,
        "original_macs": rows * block,
        "gate_work": rows * gate,  # float32 throughout: each multiply-add counts whole
        "light_work": light_rows * light,
        "full_work": hard * block,
    }


@every_pair
def test_counts_in_every_arm(pair: Pair) -> None:
    module, x = made(pair), sample(50)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    reads_light, tolerance = not isinstance(pair[1], EnergyGate | LearnedGate | RandomGate), median(module, x)
    mixed = int((~(scores(module, x) < tolerance)).sum())
    arms = [(0.0, 2.0, 50, 0), (tolerance, 2.0, mixed, 50), (tolerance, 0.0, mixed, 50 - mixed)]
    assert 0 < mixed < 50
    arms += [] if isinstance(pair[1], RandomGate) else [(math.inf, 0.0, 0, 50)]
    for value, share, hard, light_rows in arms:
        set_all(module, value)
        force_easy_only(module, share)
        output, counts = module.forward_counted(x)
        expected = hand_counts(module, 50, hard, 50 if reads_light else light_rows, scores(module, x))
        assert {**counts["fc1..fc2"], "near_rows": 0} == expected
        assert torch.equal(output, module(x))
        counted = model_macs(module, [Inputs.of(x)])
        if not isinstance(pair[1], OracleGate):  # which counts nothing: it is a yardstick
            assert counted == executed_macs(counts, expected["original_macs"])
    set_all(module, 0.0)
    after = module.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[k], v) for k, v in before.items())


def test_macs_of_the_branches_by_hand() -> None:
    module = made((LowRank(3), LearnedGate(directions=4)))
    part = module.routed.fc1_fc2
    assert row_macs(part.light) == 3 * (16 + 32) + 3 * (32 + 8)
    assert row_macs(part.gate) == 4 * 16 + 6


def test_near_rows_lie_within_the_margin() -> None:
    module, x = made((LowRank(3), EnergyGate())), sample(50)
    score = scores(module, x)
    margin = module.routed.fc1_fc2.gate.margin
    for tolerance in (0.0, math.inf, 2 * float(score.max()), *score.tolist()):
        set_all(module, tolerance)
        finite = 0 < tolerance < math.inf
        near = int(((score - tolerance).abs() < margin * tolerance).sum()) if finite else 0
        counts = module.forward_counted(x)[1]["fc1..fc2"]
        assert counts["near_rows"] == near
        assert counts["largest_score_millionths"] == int(float(score.max()) * 1e6)
        assert (near > 0) == (finite and tolerance <= float(score.max()))


FREE = [[0] * 4] * 3  # gate, light and full cost nothing


@pytest.mark.parametrize("margin", [0.0, 1e-3, 1e-2])
def test_the_margin_is_relative_to_the_tolerance(margin: float) -> None:
    offsets = torch.tensor([0.0, 0.5, -0.5, 0.9, -0.9, 1.1, -1.1, 1.9, -100.0])
    tolerance = torch.tensor(0.25)
    score = tolerance * (1 + offsets * max(margin, 1e-2))
    counts = count_rows(split_rows(score, tolerance, 2.0), score, tolerance, margin, True, FREE, 0)
    assert counts["near_rows"] == {0.0: 0, 1e-3: 1, 1e-2: 5}[margin]
    score[0], score[1] = math.nan, math.inf
    counts = count_rows(split_rows(score, tolerance, 2.0), score, tolerance, margin, True, FREE, 0)
    assert counts["near_rows"] == {0.0: 0, 1e-3: 0, 1e-2: 3}[margin]


@given(
    values=st.lists(st.sampled_from([0.0, 0.1, 0.2499, 0.5, math.inf, math.nan]), min_size=1, max_size=12),
    again=st.integers(0, 3),
    share=st.sampled_from([0.0, 2.0]),
    heads=st.booleans(),
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_a_row_that_is_there_again_for_a_kernel_is_none(
    values: list[float], again: int, share: float, heads: bool
) -> None:
    alone = torch.tensor(values)
    score, tolerance = torch.cat([alone, alone[-1:].expand(again)]), torch.tensor(0.25)
    none = torch.empty(0, dtype=torch.int64)
    count = len(score) // 2 if heads else len(score)  # two rows per token: which ones are there again is not known
    live = LiveRows(none.new_zeros(count), none, none, len(alone), [], 1, 99, none)
    costs = [[10] * 4] * 3
    wanted, found = (
        count_rows(split_rows(s, tolerance, share), s, tolerance, 1e-2, False, costs, 7) for s in (alone, score)
    )
    got = of_live_rows(dict(found), live, split_rows(score, tolerance, share), score, tolerance, 1e-2, False)
    rows = {} if heads else {name: wanted[name] for name in ("rows", "hard_rows", "near_rows", "light_rows")}
    assert got == {**found, **rows}


def test_a_routed_module_without_sites_counts_nothing() -> None:
    module = rewrite(capture(Mlp().eval()), [], {})
    output, counts = module.forward_counted(torch.ones(2, 16))
    assert counts == {}
    assert torch.equal(output, module(torch.ones(2, 16)))


def test_easy_only_from_weighs_moving_against_computing() -> None:
    assert easy_only_from(0, 16, 8) == 1.0
    assert easy_only_from(MACS_PER_MOVED_VALUE * (16 + 8), 16, 8) == 0.5
    assert easy_only_from(10**10, 16, 8) < 1e-6


@given(
    values=st.lists(st.sampled_from([0.0, 0.1, 0.5, 1e30, math.inf, math.nan]), max_size=12),
    tolerance=st.sampled_from([0.0, 0.1, 0.3, math.inf]),
    share=st.sampled_from([0.0, 0.5, 2.0]),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_split_rows(values: list[float], tolerance: float, share: float) -> None:
    split = split_rows(torch.tensor(values), torch.tensor(tolerance), share)
    f32 = float(torch.tensor(tolerance))
    hard = [i for i, v in enumerate(values) if not float(torch.tensor(v)) < f32]
    assert (split.rows, split.hard_rows) == (len(values), len(hard))
    if 0 < len(hard) < len(values):
        assert split.hard.tolist() == hard
        assert split.easy_only == (len(hard) >= share * len(values))
        if split.easy_only:
            assert split.easy.tolist() == [i for i in range(len(values)) if i not in hard]
