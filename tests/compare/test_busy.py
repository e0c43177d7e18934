"""The table of a busy machine: whether its times are believed, and when they are taken again."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from dendrofx import Plan
from dendrofx.compare.bench import Bench
from dendrofx.compare.records import AGAIN
from dendrofx.compare.tables import footer
from dendrofx.machine.pace import noisy
from dendrofx.machine.race import Race
from dendrofx.plan.plan import CascadePlan
from tests.made_records import BUDGET, CONTROLS, MACHINE, record
from tests.races import RACES


@pytest.mark.parametrize(("race", "says"), [
    ("quiet", []),
    ("one busy process", ["noisy: 423 involuntary", "UNRELIABLE: routed is 7.42 x by the medians, 3.11 x by CPU time"]),
    ("two busy processes", ["noisy: 337 involuntary", "UNRELIABLE: routed is 7.23 x by the medians, 3.08 x by the quickest"]),
    ("others compute", ["noisy: 222 involuntary", "UNRELIABLE: routed is 0.04 x by the medians, 3.59 x by CPU time"]),
])  # fmt: skip
def test_under_the_table_stands_whether_to_believe_it(race: str, says: list[str]) -> None:
    plan = Plan([], BUDGET, cascade=CascadePlan("refused", "no light model is faster"))
    made = record(plan=plan, without=CONTROLS, race=RACES[race])
    made = replace(made, noisy=noisy(made.race, "scripted", AGAIN, "routed"))
    lines = footer(made, MACHINE, 0).partition("A/A ratio ")[2].splitlines()
    starts = [line for line in lines[1:-1] if not line.startswith("  ")]
    assert len(starts) == len(says)
    assert all(line.startswith(start) for line, start in zip(starts, says, strict=True)), starts
    assert all(len(line) <= 100 for line in lines[1:-1])
    assert bool(made.unreliable) is bool(says)


@pytest.mark.parametrize(("races", "threads"), [
    (["quiet"], [2]),
    (["one busy process", "alone", "quiet"], [2, 1, 2]),
    (["one busy process", "alone", "two, a larger model", "alone"], [2, 1, 2, 1]),
    (["two, on one thread", "quiet"], [2, 2]),
])  # fmt: skip
def test_a_table_whose_times_contradict_each_other_is_timed_again_once(races: list[str], threads: list[int]) -> None:
    seen: list[tuple[int, int]] = []

    class Recording(Bench):
        def __init__(self) -> None:
            self.prepared = record().prepared

        def time(self, modules: Any) -> Race:
            seen.append((torch.get_num_threads(), len(modules)))
            name = races[len(seen) - 1]
            return RACES[name] if name != "alone" else RACES[races[len(seen) - 2]].alone or RACES["quiet"]

    torch.set_num_threads(2)
    try:
        found = Recording().race(dict.fromkeys(["scripted", AGAIN, "routed", "eager"], torch.nn.Identity()))
    finally:
        torch.set_num_threads(1)
    assert [count for count, _ in seen] == threads
    assert all(modules == (4 if count == 2 else 3) for count, modules in seen)
    assert found.timings == RACES[[name for name in races if name != "alone"][-1]].timings
