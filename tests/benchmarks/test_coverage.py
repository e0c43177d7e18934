"""The coverage command: its draws, its figures, and that it can find a guarantee that does not hold."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.coverage import POOLS, main
from benchmarks.studies import coverage as study
from benchmarks.studies.coverage import Walk, coverage, table
from dendrofx import Budget

FLIP = Budget("flip", 0.05, 0.95)


def path(*risks: float, samples: int = 4000, cost: float = 0.5) -> Walk:
    """A path with these risks, exactly, each step cheaper than the one before."""
    losses = torch.stack([(torch.arange(samples) < r * samples).double() for r in risks])
    return Walk(losses, tuple(cost / (i + 1) for i in range(len(risks))))


def test_a_path_below_the_limit_has_no_violations_and_the_last_step_is_taken() -> None:
    found = coverage("x", [path(0.0, 0.01, 0.02)], FLIP, 2000, 100)
    assert (found.violations, found.refused, found.median, found.following) == (0, 0, 0.02, None)


def test_violations_are_as_rare_as_promised_where_the_limit_is_passed_by_little() -> None:
    found = coverage("x", [path(0.0, 0.02, 0.0505)], FLIP, 2000, 400)
    assert 0 < found.violations <= 0.05 * 400 + 4 * (0.05 * 0.95 * 400) ** 0.5
    assert found.following == pytest.approx(0.0505)
    assert found.p_value > 0.05


def test_a_violation_on_any_path_counts_and_the_cheapest_accepted_is_taken() -> None:
    found = coverage("x", [path(0.0, 0.01), path(0.02, 0.5, cost=0.1)], FLIP, 2000, 50)
    assert (found.steps, found.violations, found.median, found.following) == (4, 0, 0.02, 0.5)
    wrong = coverage("x", [path(0.0, 0.01), path(0.06, cost=0.9)], Budget("flip", 0.05, 0.5), 20, 200)
    assert wrong.violations > 0
    assert wrong.median == 0.01


def test_a_test_that_looks_at_nothing_is_found_out() -> None:
    """With a p-value that is too small by far, the violations show it."""

    class Blind(Budget):
        def p_value(self, losses: float, n: int) -> float:
            return 0.0

    found = coverage("x", [path(0.0, 0.2)], Blind("flip", 0.05, 0.95), 500, 50)
    assert found.violations == 50 > found.allowed


def test_the_command_names_the_cases_of_the_study() -> None:
    assert tuple(study.POOLS) == POOLS


@pytest.mark.nightly
def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(study, "TRIPLES", [t for t in study.TRIPLES if t[:2] in (("flip", 0.02), ("deviation", 0.05))])
    assert main(["--case", "digits", "--draws", "5", "--json", str(tmp_path / "c.json")]) == 0
    rows = json.loads((tmp_path / "c.json").read_text())
    assert rows
    assert {r["metric"] for r in rows} >= {"flip", "deviation"}
    assert "| case" in capsys.readouterr().out
    assert table([])
