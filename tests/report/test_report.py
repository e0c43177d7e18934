"""The file that `report` writes: what it says, that it fetches nothing, and what it refuses."""

import html
import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import dendrofx
from dendrofx import InputError
from dendrofx.compare.points import AGAIN, CHOSEN, ORIGINAL
from dendrofx.machine.race import Race, Timing
from dendrofx.report.collect import Collected, collect
from dendrofx.report.given import Given
from dendrofx.report.page import page
from dendrofx.report.words import remarks, verdict
from tests.made import made

SECONDS = 0.05


@cache
def collected(kind: str, with_model: bool = False) -> Collected:
    """Return what a report on a made module shows, measured once."""
    subject = made(kind)
    return collect(Given.of(subject.module, [subject.rows], subject.model if with_model else None, None), SECONDS, 0)


def words_of(text: str) -> str:
    """Return what a person reads on a page."""
    shown = re.sub(r"<style>.*?</style>|<script.*?</script>", "", text, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", shown)).split())


class Elements(HTMLParser):
    """The elements of a page that are opened, with their attributes, and those that are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.opened: list[tuple[str, dict[str, str | None]]] = []
        self.closed: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.opened.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        self.closed.append(tag)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("mlp", ["Routed, Sequential", "within the budget of 5 %", "Exact: every sample passes one gate", "(chosen)"]),
        ("nothing-routed", ["Nothing is routed: the outputs are the original's", "No rows are routed: 0..2 refused", "keeps it"]),
        ("no-gate", ["Light on every row, Sequential", "no gate and no full branch is kept", "NoGate() none"]),
        pytest.param("residual", ["A prediction:", "fc1..fc2", "Light + gate, ms"], marks=pytest.mark.slow),
        pytest.param("padded", ["dead rows of mask: live", "of 2 rows full"], marks=pytest.mark.slow),
        pytest.param("cascade", ["recomputed by the original", "90 % confidence the mean loss (flip)"], marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_what_it_says(kind: str, said: list[str]) -> None:
    found = collected(kind)
    text = page(found)
    shown = words_of(text)
    assert [s for s in said if s not in shown] == []
    assert f"torch {torch.__version__}" in shown
    assert "A/A" in shown or not found.routed
    assert len(text) < 3e6


def test_nothing_is_fetched_and_every_element_is_closed() -> None:
    text = page(collected("mlp"))
    elements = Elements(text)
    leads = [v for _, a in elements.opened for k, v in a.items() if k in ("src", "href", "srcset", "action", "data")]
    assert leads == ["#content"]
    assert not re.search(r"url\(|@import|https?:|fetch\(|XMLHttp|import\(", text)
    assert "default-src 'none'" in text
    void = {"meta", "input", "wbr"}
    assert sorted(t for t, _ in elements.opened if t not in void) == sorted(elements.closed)
    headed = [a.get("scope") for t, a in elements.opened if t == "th"]
    assert {"row", "col"} == set(headed)


def test_everything_is_escaped() -> None:
    bad = '</script><script>alert("1")</script>'
    found = collected("mlp")
    assert found.replay is not None
    plan = replace(found.plan, timing=bad)
    made_bad = replace(found, model=bad, output=bad, plan=plan, machine={**found.machine, "cpu": bad})
    made_bad = replace(made_bad, replay=replace(found.replay, sites=(bad,)))
    text = page(made_bad)
    assert "alert(&quot;1" in text
    assert "<script>alert" not in text
    assert text.count("</script>") == 2


def test_the_figures_are_those_of_the_module() -> None:
    subject, found = made("mlp"), collected("mlp", with_model=True)
    with torch.no_grad():
        exact, seen = subject.model(subject.rows), subject.module(subject.rows)
        counts = subject.module.forward_counted(subject.rows)[1]
    far = (seen - exact).double().norm(dim=1) / exact.double().norm(dim=1).clamp_min(1e-12)
    assert found.quality.mean == pytest.approx(float(far.mean()), rel=1e-3)
    (site,) = found.shares
    assert found.shares[site] == (counts[site]["hard_rows"], counts[site]["rows"])
    assert found.worst[0].index == int(far.argmax())
    assert found.worst[0].deviation == pytest.approx(float(far.max()), rel=1e-3)
    assert found.is_model


def test_a_verdict_says_what_the_figures_say() -> None:
    found = collected("mlp")
    assert found.sweep is not None

    def said(speedup: float, again: float = 1.0, waited: float = 0.0, budget: float = 0.05) -> str:
        """Say it where the original takes 10 ms, of which it may have waited some for a CPU."""
        assert found.sweep is not None
        timings = {
            ORIGINAL: Timing((10.0,) * 15, (10.0 - waited,) * 15),
            AGAIN: Timing((10.0 * again,) * 15, (10.0 * again - waited,) * 15),
            CHOSEN: Timing((10.0 / speedup,) * 15, (10.0 / speedup,) * 15),
        }
        points = [replace(p, timing=timings[CHOSEN]) for p in found.sweep.points]
        sweep = replace(found.sweep, points=points, race=Race(timings, 15, 0.0))
        other = replace(found, sweep=sweep, plan=replace(found.plan, max_deviation=budget))
        return " ".join([verdict(other), *remarks(other)])

    assert "is 1.50 times as fast as the original, with" in said(1.5)
    assert "SLOWER than the original, 0.50 times" in said(0.5)
    assert "as far as can be told here (1.10 x, noisy)" in said(1.1, again=1.2)
    assert "times as fast" not in said(4.0, waited=8.0)
    assert "Unreliable times: 4.00 x by the medians" in said(4.0, waited=8.0)
    assert "ABOVE the budget of 0.0001 %" in said(1.5, budget=1e-6)
    assert "within the budget" not in said(1.5, budget=1e-6)


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        ("linear", {}, "report takes the module that dendrofx.transform returned, got a Linear"),
        ("made", {"model": nn.Linear(64, 2).eval()}, "model= is another model than the one that was transformed: a Linear"),
        ("made", {"seconds": 0}, "seconds is the time for timing, a number above 0, got 0"),
        ("made", {"batch_size": 0}, "batch_size is a whole number of at least 1, got 0"),
        ("made", {"data": 7}, "data is a batch or an iterable of batches"),
        ("made", {"data": torch.ones(1, 64)}, "data holds fewer than two samples"),
        ("made", {"path": "."}, "cannot write to .: it is a folder"),
    ],
)  # fmt: skip
def test_what_it_refuses(module: str, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    subject = made("nothing-routed")
    given: Any = {"data": [subject.rows], "path": tmp_path / "report.html", **options}
    with pytest.raises(InputError, match=re.escape(message)):
        dendrofx.report(nn.Linear(2, 2) if module == "linear" else subject.module, **given)
    assert not (tmp_path / "report.html").exists()


def test_it_writes_one_file_and_returns_its_path(tmp_path: Path) -> None:
    subject = made("nothing-routed")
    path = dendrofx.report(
        subject.module, subject.rows, tmp_path / "r.html", model=subject.model, batch_size=64, seconds=SECONDS
    )
    assert [path] == list(tmp_path.iterdir())
    assert "332 samples, 64 a call" in words_of(path.read_text(encoding="utf-8"))
