"""The seeds command: its figures are medians over seeds, and a refusal counts as the original."""

import json
from pathlib import Path

import pytest

from benchmarks.seeds import main
from benchmarks.studies.seeds import Drawn, figures, summary


def drawn(seed: int, routed: float, static: float) -> Drawn:
    return Drawn("flip:0.02:0.95", 256, seed, routed, static, 1.0, (0.01, 0.0), "Exit('stem') with MarginGate()")


def test_the_ratio_is_the_median_of_the_seeds_ratios_and_what_is_refused_counts_as_the_original() -> None:
    cell = [drawn(0, 3.0, 2.0), drawn(1, 1.0, 2.0), drawn(2, 2.4, 1.0)]
    routed, static, again, ratio, _, lost, refused = figures(cell)
    assert (routed, static, again, ratio) == ("2.40", "2.00", "1.00", "1.50")
    assert (lost, refused) == ("1 0", "1 1")
    assert all(len(line) <= 100 for line in summary(cell).splitlines())


@pytest.mark.nightly
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "s.json"
    assert main(["--seeds", "1", "--tune-seconds", "0", "--json", str(file)]) == 0
    (found,) = json.loads(file.read_text())["seeds"]
    assert found["routed"] > 0 < found["static"]
    assert f"{found['routed']:.2f}" in capsys.readouterr().out
