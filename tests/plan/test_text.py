"""Plans as text."""

from dendrofx import Int8, LowRank, Plan, Prepacked, ResidualGate, SitePlan
from dendrofx.machine.capability import capability
from dendrofx.plan.origin import Origin
from dendrofx.plan.times import ModelTimes
from tests.recorded import EVERY

WAITED = "scripted waited for a CPU in 87 % of its time"
RACED = [
    ModelTimes(256, 10.0, 4.0, 0.013),
    ModelTimes(1, 0.4, 0.1, 0.0, "scripted: p95 20.7 ms, p50 0.4 ms"),
    ModelTimes(8, 23.0, 0.9, 0.001, WAITED, WAITED, None, 2.9, 2),
    ModelTimes(16, 23.0, 0.9, 0.001, WAITED, WAITED, 2.9, 3.1, 2),
]


def test_the_printed_plan() -> None:
    here = capability()
    origin = Origin("0.2.0", "2.13.0", "a CPU", 2, here, 1, "m", "d", 0, (1, 256), 1.05)
    entries = [
        SitePlan("fc1..fc2", "routed", "light costs 25 %", "4 -> 8 -> 2", Int8(), ResidualGate(), Prepacked(), 0.0125, 1.0,
                 0.031, 0.26, 0.875, 256, 3.14159, 1.2345, 1.3, 0.4),
        SitePlan("head", "routed", "by the bound", "2 -> 2", LowRank(2), EVERY, None, 0.5),
        SitePlan("stem", "refused", "no light form pays (%stem)", "4 -> 4"),
    ]  # fmt: skip
    plan = Plan(entries, 0.01, 0.0091, (40, 20, 20, 20), 0.01, RACED, origin, timing="tuning was interrupted")
    lines = str(plan).splitlines()
    cells = [[c.strip() for c in line.split("  ") if c.strip()] for line in lines[:4]]
    assert cells[0] == [
        "routed site", "shape", "light", "gate", "full", "tolerance", "activity", "compute", "skill", "block ms", "predicted",
        "measured",
    ]  # fmt: skip
    assert cells[2] == [
        "fc1..fc2", "4 -> 8 -> 2", "Int8()", "ResidualGate()", "Prepacked()", "0.0125", "3.1 %", "26.0 %", "0.88", "3.14",
        "1.23", "1.3",
    ]  # fmt: skip
    assert cells[3] == ["head", "2 -> 2", "LowRank(rank=2, basis='weight')", "AlwaysLight()", "block", "0.5"]
    assert lines[4:] == [
        "",
        "routed fc1..fc2 (4 -> 8 -> 2): light costs 25 %",
        "routed head (2 -> 2): by the bound",
        "refused stem (4 -> 4): no light form pays (%stem)",
        "tuning was interrupted",
        "whole model at batch 256: 10 ms scripted, 4 ms rewritten, 2.50 x (A/A: 1.3 % off)",
        "whole model at batch 1: 0.4 ms scripted, 0.1 ms rewritten, 4.00 x (A/A: 0.0 % off); noisy:",
        "  scripted: p95 20.7 ms, p50 0.4 ms",
        "whole model at batch 8: 23 ms scripted, 0.9 ms rewritten, UNRELIABLE: 25.56 x by the medians, 2.90",
        "  x by CPU time on one thread (scripted waited for a CPU in 87 % of its time)",
        "whole model at batch 16: 2.90 x (A/A: 0.1 % off); medians UNRELIABLE, 23 ms scripted, 0.9 ms",
        "  rewritten: 25.56 x by the medians, 2.90 x by the quickest calls, 3.10 x by CPU time on one",
        "  thread (scripted waited for a CPU in 87 % of its time)",
        "mean deviation at most 0.0091 (95 % limit on 20 calibration samples), budget 0.01; 40 samples fitted lights, 20 gates,"
        " 20 chose among them",
    ]
    assert str(Plan(entries[2:], 0.01, 0.0, (40, 20, 20, 20))).splitlines() == [
        "refused stem (4 -> 4): no light form pays (%stem)",
        "nothing is routed: the outputs are the original's (budget 0.01)",
    ]
    assert str(Plan(entries[1:2], 0.5)).endswith(
        "tolerances from the bound alone (no calibration data), max_deviation 0.5"
    )
