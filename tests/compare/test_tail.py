"""The tail column of the first screen, in the terms of what was asked for."""

from dataclasses import replace
from typing import Any

import pytest

from dendrofx import Budget
from dendrofx.compare.prepare import Asked
from dendrofx.compare.summary import summary
from dendrofx.compare.tables import table
from dendrofx.compare.verdict import verdict
from tests.made_records import MACHINE, record, row

EXCEEDS = Budget("exceeds(0.05)", 0.02)


def made(asked: Asked) -> Any:
    found = record(
        row("routed", 5.0, 0.005, 0.02, 0.07, loss=None if asked.budget is None else 0.0125), row("eager", 9.0)
    )
    return replace(found, prepared=replace(found.prepared, asked=asked))


@pytest.mark.parametrize(("asked", "head", "figure"), [
    (Asked(), "p99", "2 %"),
    (Asked(budget=EXCEEDS), "> 5 %", "1.2 %"),
    (Asked(max_sample_deviation=0.2), "largest", "7 %"),
    (Asked(budget=EXCEEDS, max_sample_deviation=0.2), "> 5 %", "1.2 %"),
])  # fmt: skip
def test_the_column_says_what_was_asked_for(asked: Asked, head: str, figure: str) -> None:
    lines = summary([made(asked)], MACHINE).splitlines()
    assert max(map(len, lines)) <= 100
    (heads,) = [line for line in lines if "over scripted" in line]
    (routed,) = [line for line in lines if line[11:].startswith("routed")]
    end = heads.index(head) + len(head)
    assert routed[: end + len(" %")].endswith(f"  {figure}")


def test_a_limit_for_samples_stands_behind_the_budget_and_in_the_verdict() -> None:
    limited = made(Asked(max_sample_deviation=0.2))
    assert "mean deviation at most 1 %, no calibration sample above 20 %" in summary([limited], MACHINE)
    assert "largest deviation of a test sample 7.00e-02, at most 0.2 on calibration samples" in verdict(limited)[0]
    assert "calibration sample" not in summary([made(Asked())], MACHINE) + verdict(made(Asked()))[0]


def test_all_rows_have_the_largest_deviation_of_a_sample() -> None:
    heads, _, *lines = table(made(Asked())).splitlines()
    end = heads.index("tail max") + len("tail max")
    assert [line[:end].split()[-1] for line in lines if line.startswith("routed")] == ["7.00e-02"]
