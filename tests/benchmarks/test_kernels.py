"""The cases `kernels` and `hf` of `python -m benchmarks.compare`: their tables, and the JSON of the first."""

import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import dendrofx
from benchmarks.studies import compare
from benchmarks.studies.families import FamilyRecord, family_table
from dendrofx.machine.race import race


def test_kernels(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "QUICK_SECONDS", 0.0)
    monkeypatch.setattr("benchmarks.studies.kernels.race", partial(race, least_rounds=2))
    args: Any = SimpleNamespace(quick=True, seed=0, threads=1)
    (made,) = compare.run_planless("kernels", args, compare.describe_machine())
    text, entry = capsys.readouterr().out, made.to_json()
    assert (entry["case"], entry["batch"], entry["shape"], entry["threads"]) == ("kernels", 32, [384, 1536], 1)
    here = dendrofx.capability()
    wanted = {"F.linear": 1e-5, "F.linear again": 1e-5, "Prepacked()": 1e-5, "Transposed()": 1e-5}
    wanted |= {"Int8(weight_bits=7)": 0.05, "int8 product alone": math.nan}
    if here.bf16:
        wanted |= {"BFloat16()": 0.02, "BFloat16(packed=True)": 0.02}
    if here.vnni and here.int8_exact:
        wanted |= {"Int8()": 0.03, "int8 before": 0.03}
    found = {v["name"]: v for v in entry["variants"]}
    assert set(found) == set(wanted)
    assert set(entry["refused"]) == {"BFloat16()", "BFloat16(packed=True)", "Int8()"} - set(wanted)
    for name, most in wanted.items():
        variant = found[name]
        if math.isnan(most):
            assert variant["error"] is variant["error_worst_row"] is None
        else:
            assert 0 < variant["error"] <= variant["error_worst_row"] < most
        assert variant["gmacs"] > 0
        assert variant["peak_share"] > 0
        assert set(variant["latency_ms"]) == {"p50", "p95"}
        assert any(line.startswith(name + "  ") for line in text.splitlines())
    assert found["F.linear"]["speedup_vs_linear"] == 1.0
    if "Int8()" in found:
        assert found["int8 before"]["error"] == pytest.approx(found["Int8()"]["error"], rel=0.05)
    assert {"float32", "int8"} <= set(entry["peak_gmacs"])
    for words in ("--- kernels, 32 x 384 -> 1536", "% of peak", "A/A ratio", "measured peaks", "1 thread; "):
        assert words in text


def test_kernels_beside_a_case(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ran: list[str] = []
    monkeypatch.setattr(compare, "run_case", lambda name, *rest: ran.append(name) or [])
    monkeypatch.setattr(compare, "run_planless", lambda name, *rest: ran.append(name) or [])
    monkeypatch.setattr(compare, "summary", lambda *rest: "")
    monkeypatch.setattr(compare, "write_plans", lambda *rest: [])
    names = ["kernels", "wide", "hf"]
    args: Any = SimpleNamespace(case=names, out=tmp_path, plots=None, json=None, save_plan=None, threads=1)
    compare.run(args)
    assert ran == names


def test_table_of_families() -> None:
    long = "captured by export, equal to the model to 3.1e-07 (torch's fused encoder layers sum in another order)"
    sides = [
        FamilyRecord("bert-sdpa", side, long, long, 11, difference)
        for side, difference in (("left", 0), ("right", 2e-7))
    ]
    lines = family_table(sides).splitlines()
    assert [line.split() for line in lines[2:4]] == [
        ["bert-sdpa", "left", "11", "0"],
        ["bert-sdpa", "right", "11", "2.0e-07"],
    ]
    assert " ".join(map(str.strip, lines[5:])) == f"bert-sdpa (left), bert-sdpa (right): {long}; {long}"
    assert max(map(len, lines)) <= 100
