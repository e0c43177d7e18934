"""The footprint command: its figures are those of the process, and its table says which."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.cases import CaseUnavailableError
from benchmarks.footprint import main
from benchmarks.studies import footprint
from dendrofx.compare.case import Case
from dendrofx.compare.samples import Rows
from tests.models import Residual
from tests.recorded import rows

pytestmark = pytest.mark.skipif(not footprint.MARK.exists(), reason="needs /proc/self/clear_refs")


def test_the_peak_is_that_of_the_call_and_the_mark_is_set_back() -> None:
    footprint.MARK.write_text("5", encoding="ascii")
    before = footprint.memory("VmRSS")
    large = torch.ones(50_000_000)
    assert footprint.memory("VmHWM") - before == pytest.approx(200, abs=10)
    del large
    assert footprint.memory("VmRSS") - before < 20 < footprint.memory("VmHWM") - before
    footprint.MARK.write_text("5", encoding="ascii")
    assert footprint.memory("VmHWM") - before < 20


def made(**options: object) -> Case:
    model: nn.Module = Residual(64, 256).eval()
    return Case("made", "made up", model, [rows(100, i) for i in range(8)], Rows(rows(10)), False, **options)  # type: ignore[arg-type]


@pytest.mark.nightly
def test_a_row_per_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(footprint.CASES, "digits", lambda options: made(budgets=(0.5, 0.1)))
    file = tmp_path / "f.json"
    assert main(["--case", "digits", "--batch", "16", "--json", str(file)]) == 0
    found = json.loads(file.read_text(encoding="utf-8"))["cases"]
    assert [f["max_deviation"] for f in found] == [0.5, 0.1]
    out = capsys.readouterr().out
    weights = sum(p.numel() * 4 for p in made().model.parameters()) / 1e6
    for row in found:
        assert row["weights_mb"] == pytest.approx(weights)
        assert row["peak_mb"] >= row["kept_mb"] - 1
        assert row["seconds"] > 0
        assert f"{row['seconds']:.1f}" in out


def test_a_case_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def missing(options: object) -> Case:
        raise CaseUnavailableError("pip install it")

    monkeypatch.setitem(footprint.CASES, "digits", missing)
    assert main(["--case", "digits"]) == 2
    assert "pip install it" in capsys.readouterr().err
