"""Effective compute: what executed, against a count by hand and against what torch dispatched."""

from collections.abc import Mapping
from typing import NamedTuple

import pytest
import torch
from torch import nn

import dendrofx
from dendrofx import LearnedGate, LowRank, ResidualGate
from dendrofx.compare import controls
from dendrofx.compare.bench import Bench
from dendrofx.compare.case import Case
from dendrofx.compare.prepare import Asked, Prepared
from dendrofx.compare.samples import Rows
from dendrofx.rewriting.counted import graph_names
from dendrofx.runtime.routing import easy_only_from
from dendrofx.values.counts import activity, executed_macs, executed_work, site_activity, site_compute
from dendrofx.values.inputs import Inputs
from dendrofx.values.measure import counted_outputs, model_macs
from tests.asked import asked
from tests.models import Residual

WIDTH, HIDDEN, OUT, ROWS = 48, 192, 4, 90
BLOCK = 2 * WIDTH * HIDDEN  # fc1..fc2
STEM = WIDTH * WIDTH
HEAD = WIDTH * OUT  # never routed here
RANK, DIRECTIONS = 4, 3
LIGHT = {"stem": RANK * 2 * WIDTH, "fc1..fc2": 2 * RANK * (WIDTH + HIDDEN)}
FULL = {"stem": STEM, "fc1..fc2": BLOCK}
GATE = DIRECTIONS * WIDTH + DIRECTIONS + 2  # projections, then one weight per feature
ARMS = ["routed", "always-full", "always-light", "random", "oracle"]

Counts = Mapping[str, Mapping[str, int]]


class Setup(NamedTuple):
    model: nn.Module
    arms: dict[str, dendrofx.RoutedModule]
    x: torch.Tensor


def make(gate: dendrofx.GateForm) -> Setup:
    """Two sites whose tolerances part the rows: about half of them hard."""
    torch.manual_seed(0)
    model = Residual(WIDTH, HIDDEN).eval()
    options = {"light": LowRank(RANK, "input"), "gate": gate, "sites": ["stem", "fc*"], "decide": False}
    routed = dendrofx.transform(
        model, calibration=[torch.randn(300, WIDTH)], budget=0.3, **asked(**options, tune_seconds=0)
    )
    x = torch.randn(ROWS, WIDTH)
    for site, (score, _) in controls.site_errors(routed, [Inputs((x,))], 0).items():
        name = graph_names(routed)[site]
        dendrofx.set_tolerances(routed, {name: float(score.quantile(0.6 if site == "stem" else 0.3))})
    counts = counted_outputs(routed, [Inputs((x,))])[1]
    arms = {
        "routed": routed,
        "always-full": controls.always_full(routed),
        "always-light": controls.always_light(routed),
    }
    arms |= {
        "random": controls.at_random(routed, counts, 0),
        "oracle": controls.by_oracle(routed, counts, Inputs((x,))),
    }
    return Setup(model, arms, x)


@pytest.fixture(scope="module")
def learned() -> Setup:
    return make(LearnedGate(directions=DIRECTIONS))


@pytest.fixture(scope="module")
def residual() -> Setup:
    return make(ResidualGate())


def by_hand(arm: str, counts: Counts) -> int:
    """Multiply-adds of the whole model, from the routes alone."""
    total = ROWS * HEAD
    for site, c in counts.items():
        hard, easy = c["hard_rows"], ROWS - c["hard_rows"]
        reads_light = arm == "oracle"
        light_rows = easy if hard >= easy_only_from(LIGHT[site], WIDTH, WIDTH) * ROWS else ROWS
        if hard == ROWS:
            light_rows = 0
        light_rows = ROWS if reads_light else light_rows
        gate = GATE if arm in ("routed", "always-full") else 0
        total += ROWS * gate + light_rows * LIGHT[site] + hard * FULL[site]
    return total


ORIGINAL = ROWS * (STEM + BLOCK + HEAD)


@pytest.mark.parametrize("arm", ARMS)
def test_effective_compute_equals_the_hand_count(learned: Setup, arm: str) -> None:
    scripted = dendrofx.script(learned.arms[arm])
    _, counts = scripted.forward_counted(learned.x)
    assert set(counts) == {"stem", "fc1..fc2"}
    assert model_macs(learned.model, [Inputs((learned.x,))]) == ORIGINAL
    assert executed_macs(counts, ORIGINAL) == by_hand(arm, counts)
    assert executed_work(counts, ORIGINAL) == by_hand(arm, counts)  # every operand is float32
    hard = {s: c["hard_rows"] for s, c in counts.items()}
    if arm in ("always-full", "always-light"):
        assert set(hard.values()) == {ROWS if arm == "always-full" else 0}
    else:
        assert all(0 < h < ROWS for h in hard.values())


@pytest.mark.parametrize("arm", ARMS[:-1])  # the oracle runs both branches to judge: its gate is not counted
@pytest.mark.parametrize("gate", ["learned", "residual"])
def test_counts_are_what_torch_dispatched(gate: str, arm: str, request: pytest.FixtureRequest) -> None:
    setup: Setup = request.getfixturevalue(gate)
    module, batch = setup.arms[arm], [Inputs((setup.x,))]
    assert executed_macs(counted_outputs(module, batch)[1], ORIGINAL) == model_macs(module, batch)


@pytest.mark.parametrize("arm", ARMS)
def test_the_benchmark_prints_that_share(learned: Setup, arm: str) -> None:
    case = Case("two", "two sites", learned.model, [], Rows(learned.x), classes=True)
    routed = {"routed": learned.arms["routed"]}
    plans = {"routed": learned.arms["routed"].plan}
    bench = Bench(Prepared(case, ROWS, Asked(), "routed", routed, False, plans, {}, 0.0), ROWS, 0.01, 0)
    frozen = dendrofx.script(learned.arms[arm], freeze=True)
    counts = frozen.forward_counted(learned.x)[1]
    quality = bench.quality(frozen, counted=True)
    assert quality.effective_compute == by_hand(arm, counts) / ORIGINAL
    assert quality.plain_macs == quality.effective_compute  # every operand is float32
    hard = sum(c["hard_rows"] * FULL[s] for s, c in counts.items())
    assert quality.activity == pytest.approx(hard / (ROWS * (STEM + BLOCK)), rel=1e-12)


def test_uncounted_modules_run_everything(learned: Setup) -> None:
    case = Case("two", "two sites", learned.model, [], Rows(learned.x), classes=False)
    routed = {"routed": learned.arms["routed"]}
    plans = {"routed": learned.arms["routed"].plan}
    bench = Bench(Prepared(case, ROWS, Asked(), "routed", routed, False, plans, {}, 0.0), ROWS, 0.01, 0)
    quality = bench.quality(learned.model, counted=False)
    assert (quality.effective_compute, quality.activity, quality.mean, quality.agreement) == (1.0, None, 0.0, None)


@pytest.mark.parametrize("site", ["stem", "fc1..fc2"])
@pytest.mark.parametrize(("arm", "slack"), [("oracle", 2), ("random", 18)])  # a random choice: 4 standard deviations
def test_controls_send_as_many_rows_to_full_as_the_gate(learned: Setup, arm: str, slack: int, site: str) -> None:
    wanted, got = (
        counted_outputs(learned.arms[a], [Inputs((learned.x,))])[1][site]["hard_rows"] for a in ("routed", arm)
    )
    assert abs(got - wanted) <= slack


def test_counts_add_up_over_batches(learned: Setup) -> None:
    routed = learned.arms["routed"]
    whole = counted_outputs(routed, [Inputs((learned.x,))])[1]
    parts = counted_outputs(routed, [Inputs((p,)) for p in learned.x.split(17)])[1]
    assert {s: (c["rows"], c["hard_rows"], c["gate_macs"], c["full_macs"]) for s, c in parts.items()} == {
        s: (c["rows"], c["hard_rows"], c["gate_macs"], c["full_macs"]) for s, c in whole.items()
    }


def test_shares_by_hand() -> None:
    counts = {
        "a": {"rows": 10, "hard_rows": 5, "gate_macs": 10, "light_macs": 20, "full_macs": 50, "original_macs": 100,
              "gate_work": 10, "light_work": 5, "full_work": 25},
        "b": {"rows": 10, "hard_rows": 0, "gate_macs": 0, "light_macs": 90, "full_macs": 0, "original_macs": 300,
              "gate_work": 0, "light_work": 45, "full_work": 0},
    }  # fmt: skip
    assert [site_activity(c) for c in counts.values()] == [0.5, 0.0]
    assert [site_compute(c) for c in counts.values()] == [0.4, 0.15]
    assert activity(counts) == 50 / 400
    assert executed_macs(counts, 1000) == 1000 - 20 - 210
    assert executed_work(counts, 1000) == 1000 - 60 - 255
    assert activity({}) == 1.0
