"""`compare --budget`: the table, the sentences and the JSON of certified rows."""

import json
from pathlib import Path

import pytest

from benchmarks import compare
from dendrofx.guarantee import binomial_p


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["block", "model"])
def test_a_certified_row_is_said_to_be_one(scope: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.json"
    given = ["--case", "wide", "--width", "128", "--depth", "1", "--quick", "--batch", "64", "--tune-seconds", "0"]
    given += ["--budget", "flip:0.1:0.9", "--scope", scope, "--light", "LowRank(16)"]
    assert compare.main([*given, "--json", str(path)]) == 0
    text = capsys.readouterr().out
    (record,) = json.loads(path.read_text())["cases"]
    rows = {v["name"]: v for v in record["variants"]}
    assert "flip %" in text
    assert rows["scripted"]["loss"] == 0.0
    shown = record["certificate"]
    assert rows["routed"]["certified"] is (shown is not None)
    assert shown is not None, text
    assert shown["p_value"] == pytest.approx(binomial_p(shown["losses"], shown["n"], shown["alpha"]))
    assert shown["p_value"] <= shown["delta"]
    assert "its budget is certified: flip at most 10 % with 90 % confidence" in text
    assert "certified" not in rows["scripted"]
    if scope == "model":
        assert "router skill on the margin lost" in text


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--budget", "flip"], "a budget is METRIC:ALPHA:CONFIDENCE"),
        (["--budget", "flop:0.1:0.9"], "metric 'flop' is none of"),
        (["--budget", "flip:2:0.9"], "limit must be between 0 and 1"),
        (["--budget", "flip:0.1:0.9", "--max-deviation", "0.1"], "are two budgets"),
        (["--scope", "model"], "--scope model needs --budget"),
    ],
)
def test_bad_budgets_are_quoted(given: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        compare.main(given)
    assert caught.value.code == 2
    assert says in capsys.readouterr().err
