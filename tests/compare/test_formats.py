"""Rows of the formats that a module can be saved in."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import dendrofx
from dendrofx import InputError
from dendrofx.compare import formats
from dendrofx.compare.summary import summary
from dendrofx.compare.verdict import verdict
from dendrofx.values.inputs import Inputs
from tests.made import made
from tests.made_records import MACHINE, record, row


def test_a_format_is_a_row_or_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    source = made("mlp")
    test = SimpleNamespace(batches=lambda size: [Inputs.of(source.rows[:size])])
    prepared: Any = SimpleNamespace(case=SimpleNamespace(test=test), routed=source.module)

    def save(module: Any, path: Path, format: Any) -> None:
        if format != "pt2":
            raise InputError(f"no form in {format}\nand more")
        dendrofx.save(module, path, format=format)

    monkeypatch.setattr(formats, "save", save)
    rows, missing = formats.format_variants(prepared)
    assert missing == {"as aoti": "no form in aoti", "as onnx": "no form in onnx"}
    (made_of,) = rows.values()
    assert made_of.file_bytes
    torch.testing.assert_close(made_of.module(source.rows), source.module(source.rows), rtol=1e-4, atol=1e-5)


def test_the_summary_has_a_line_for_each_and_they_are_no_peers() -> None:
    made_of = record(row("as pt2", 4.0, 0.005), missing={"as onnx": "no form " * 20})
    lines = summary([made_of], MACHINE).splitlines()
    assert max(map(len, lines)) <= 100
    (saved,) = [line for line in lines if line.strip().startswith("as pt2")]
    assert "2.50" in saved
    (unsaved,) = [line for line in lines if line.strip().startswith("as onnx")]
    assert unsaved.strip().endswith(" ...")
    assert "as pt2" not in " ".join(verdict(made_of))
