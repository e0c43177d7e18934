"""Progress bars: at a terminal only."""

import io
import sys
from pathlib import Path

import pytest
from tqdm import tqdm

from dendrofx.machine.progress import progress


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_is_for_a_terminal(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    monkeypatch.setattr(sys, "stderr", Stream())
    bar = progress([1, 2, 3], "counting", "number")
    assert isinstance(bar, tqdm)
    assert bar.disable is not terminal
    assert list(bar) == [1, 2, 3]


def test_there_is_no_other_bar() -> None:
    root = Path(__file__).parents[2]
    sources = [p for folder in ("dendrofx", "passes", "benchmarks") for p in (root / folder).rglob("*.py")]
    assert sources
    assert [p.name for p in sources if "tqdm" in p.read_text("utf-8")] == ["progress.py"]
