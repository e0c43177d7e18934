"""Plans as text."""

from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

from dendrofx import Int8, LearnedGate, LowRank, Plan, Prepacked, ResidualGate, SitePlan
from dendrofx.machine.capability import capability
from dendrofx.plan.folding import called, patterns
from dendrofx.plan.origin import Origin
from dendrofx.plan.times import ModelTimes, ThreadsPlan, threads_plan
from dendrofx.rewriting.cascade import cascade_parts
from tests.made import made
from tests.recorded import EVERY

WAITED = "scripted waited for a CPU in 87 % of its time"
RACED = [
    ModelTimes(256, 10.0, 4.0, 0.013),
    ModelTimes(1, 0.4, 0.1, 0.0, "scripted: p95 20.7 ms, p50 0.4 ms"),
    ModelTimes(8, 23.0, 0.9, 0.001, WAITED, WAITED, None, 2.9, 2),
    ModelTimes(16, 23.0, 0.9, 0.001, WAITED, WAITED, 2.9, 3.1, 2),
]


FOLLOWS = [
    "tuning was interrupted",
    "whole model at batch 256: 10 ms scripted, 4 ms rewritten, 2.50 x (A/A: 1.3 % off)",
    "whole model at batch 1: 0.4 ms scripted, 0.1 ms rewritten, 4.00 x (A/A: 0.0 % off); noisy:",
    "  scripted: p95 20.7 ms, p50 0.4 ms",
    "whole model at batch 8: 23 ms scripted, 0.9 ms rewritten, UNRELIABLE: 25.56 x by the medians, 2.90",
    "  x by CPU time on one thread (scripted waited for a CPU in 87 % of its time)",
    "whole model at batch 16: 2.90 x (A/A: 0.1 % off); medians UNRELIABLE, 23 ms scripted, 0.9 ms",
    "  rewritten: 25.56 x by the medians, 2.90 x by the quickest calls, 3.10 x by CPU time on one",
    "  thread (scripted waited for a CPU in 87 % of its time)",
    "mean deviation at most 0.0091 (95 % limit on 20 calibration samples), budget 0.01; 40 samples",
    "  fitted lights, 20 gates, 20 chose among them",
]
ROUTED = SitePlan(
    "fc1..fc2", "routed", "light costs 25 %; pays below an activity of 40.0 %", "4 -> 8 -> 2", Int8(), ResidualGate(),
    Prepacked(), 0.0125, 1.0, 0.031, 0.26, 0.875, 256, 3.14159, 1.2345, 1.3, 0.4,
)  # fmt: skip
HEAD = SitePlan("head", "routed", "by the bound", "2 -> 2", LowRank(2), EVERY, None, 0.5)
STEM = SitePlan("stem", "refused", "no light form pays (%stem)", "4 -> 4")


def test_the_printed_plan() -> None:
    origin = Origin("0.2.0", "2.13.0", "a CPU", 2, capability(), 1, "m", "d", 0, (1, 256), 1.05)
    entries = [ROUTED, HEAD, STEM]
    plan = Plan(entries, 0.01, 0.0091, (40, 20, 20, 20), 0.01, RACED, origin, timing="tuning was interrupted")
    assert str(plan).splitlines() == [
        "site               light form, gate                                full rows           ms    gain",
        "fc1..fc2  routed   Int8(), ResidualGate(), full Prepacked()            3.1 %  3.14 -> 1.3  2.42 x",
        "head      routed   LowRank(rank=2, basis='weight'), AlwaysLight()",
        "stem      refused  no light form pays",
        "ms: the site alone at the largest batch size, before -> after",
        "head: by the bound",
        "",
        *FOLLOWS,
    ]
    assert plan.speedup == 2.5
    assert plan.summary() == "2 of 3 sites routed: 2.50 x at batch 256, mean deviation at most 0.0091"
    assert repr(plan) == f"<Plan: {plan.summary()}>"


def test_how_many_threads_a_worker_should_have() -> None:
    both = ModelTimes(256, 3.7, 2.0, 0.0, threads=2, scripted_alone_ms=6.48, routed_alone_ms=4.0)
    found = threads_plan([ModelTimes(1, 0.4, 0.1, 0.0, "", "", None, None, 2, 0.4, 0.05), both], 1.05)
    assert found == ThreadsPlan(2, 1, 1.85, 1.62, 256), "the largest batch size says"
    said = "threads: 2 on a machine of its own (1.85 x), 1 beside others (1.62 x on one thread)"
    plan = Plan([ROUTED], 0.01, models=[both], threads=found)
    assert said in str(plan).splitlines()
    assert "threads" not in str(replace(plan, sites=[STEM])), "nothing was rewritten"
    one = threads_plan([replace(both, routed_alone_ms=1.62)], 1.05)
    assert (
        str(one)
        == "threads: 1, on a machine of its own too, where more do not make a call shorter (4.00 x on one thread)"
    )
    disturbed = threads_plan([replace(both, routed_alone_ms=1.62, doubt=WAITED, quickest=2.0, cpu=2.5)], 1.05)
    assert disturbed == ThreadsPlan(2, 1, 2.0, 4.0, 256), "a disturbed race does not say what a quiet one would"
    assert threads_plan([ModelTimes(1, 0.4, 0.1, 0.0)], 1.05) is threads_plan([], 1.05) is None
    assert threads_plan([both], 1.9) is None, "it lost"


def test_a_plan_without_routed_sites() -> None:
    plan = Plan([STEM], 0.01, 0.0, (40, 20, 20, 20), models=RACED[:1])
    assert str(plan).splitlines() == [
        "site           reason",
        "stem  refused  no light form pays",
        "",
        "whole model at batch 256: 10 ms scripted, 4 ms rewritten, 2.50 x (A/A: 1.3 % off)",
        "nothing is routed: the outputs are the original's (budget 0.01)",
    ]
    assert plan.speedup is None  # what was timed is not what came out
    assert plan.summary() == "0 of 1 sites routed: the outputs are the original's"
    assert str(Plan([HEAD], 0.5)).endswith("tolerances from the bound alone (no calibration data), max_deviation 0.5")
    assert Plan([HEAD], 0.5).summary() == "1 of 1 sites routed: not timed, tolerances from the bound alone"
    assert Plan([], 0.5).summary() == "nothing to route: the outputs are the original's"


def deep(status: Any, reason: str, **figures: Any) -> list[SitePlan]:
    """Sites of four layers that are alike, with figures by their number."""
    return [
        SitePlan(f"encoder.layer.{i}.intermediate.dense..output.dense", status, reason.format(i), "4 -> 8 -> 4",
                 **{k: v(i) if callable(v) else v for k, v in figures.items()})
        for i in range(4)
    ]  # fmt: skip


def test_sites_that_are_alike_share_a_line_and_their_figures() -> None:
    routed = deep("routed", "light costs {} %", light=Int8(), gate=ResidualGate(), activity=lambda i: i / 100,
                  block_ms=2.0, predicted_ms=1.0, measured_ms=lambda i: None if i == 2 else 0.5)  # fmt: skip
    other = replace(routed[0], name="pooler.dense", light=LowRank(2))
    assert str(Plan([*routed, other], 0.01, models=RACED[:1])).splitlines()[:6] == [
        "site                   light form, gate                              full rows         ms     gain",
        "encoder.layer.*.intermediate.dense..output.dense x 4",
        "              routed   Int8(), ResidualGate()                            1.5 %  8 -> ~2.5  ~3.20 x",
        "pooler.dense  routed   LowRank(rank=2, basis='weight'),                  0.0 %   2 -> 0.5   4.00 x",
        "                       ResidualGate()",
        "ms: the site alone at the largest batch size, before -> after, alike ones together; ~ predicted",
    ]


def test_each_reason_is_given_once() -> None:
    exact = SitePlan("head", "exact", "0.2 ms as Prepacked(), 0.3 as it was (8 rows); not routed: too small: 7 ms (%head)",
                     full=Prepacked(), block_ms=0.3, predicted_ms=0.2)  # fmt: skip
    refused = deep("refused", "too small: {} ms (%fc1)")
    named = [SitePlan(n, "refused", "not selected by sites=") for n in ("0..2", "4", "a", "b", "c")]
    assert str(Plan([exact, *refused, *named], 0.01)).splitlines()[:6] == [
        "site                            light form, gate                  ms    gain",
        "head                   exact    Prepacked() on every row  0.3 -> 0.2  1.50 x",
        "head, encoder.layer.*.intermediate.dense..output.dense x 4",
        "                       refused  too small: 7 ms (figures of the first)",
        "0..2, 4, a and 2 more  refused  not selected by sites=",
        "ms: the site alone at the largest batch size, before -> after",
    ]


def test_names_that_differ_in_one_number_have_a_pattern() -> None:
    assert patterns(["a.0.b", "head", "a.1.b"]) == [("a.*.b", 2), ("head", 1)]
    assert patterns(["0..2", "4..6"]) == [("0..2", 1), ("4..6", 1)]  # sites="*..*" would be any chain
    assert patterns(["a.0.b.0", "a.1.b.1"]) == [("a.0.b.0", 1), ("a.1.b.1", 1)]
    assert called(["fc", "fc#2", "fc#3"]) == "fc, fc#* x 2"


def test_a_notebook_shows_a_table_with_everything_escaped() -> None:
    plan = Plan([replace(ROUTED, name="<b>"), replace(STEM, reason="1 < 2 & 'so on'")], 0.5, timing="<i>")
    shown = plan._repr_html_()
    fragment = ElementTree.fromstring(f"<div>{shown}</div>")
    assert [[cell.text for cell in row] for row in fragment.iter("tr")][1:] == [
        ["<b>", "routed", "Int8(), ResidualGate(), full Prepacked()", "3.1 %", "3.14 -> 1.3", "2.42 x"],
        ["stem", "refused", "1 < 2 & 'so on'"],
    ]
    assert next(item.text for item in fragment.iter("li")) == "<i>"


def test_every_line_fits() -> None:
    form = LowRank(16, precision=Int8(7))
    long = [replace(s, name=s.name * 3, light=form, full=Prepacked()) for s in deep("routed", "light costs", block_ms=1e3,
            gate=LearnedGate(8, reads="light"), predicted_ms=1e-3, activity=0.5)]  # fmt: skip
    plan = Plan([*long, replace(STEM, reason="word " * 60)], 0.5, models=RACED, capture="only for x.size(0) == 8, " * 9)
    assert max(map(len, str(plan).splitlines())) <= 98


def test_modules_fronts_and_certificates_are_short_in_a_console() -> None:
    cascade, mlp = made("cascade").module, made("mlp").module
    assert repr(mlp) == f"<Sequential on dendrofx: {mlp.plan.summary()}>"
    assert mlp._repr_html_() == f"<p>Sequential</p>{mlp.plan._repr_html_()}"
    parts = cascade_parts(cascade)
    assert parts is not None
    assert repr(parts[0]) == "<GraphModule on dendrofx: rewritten by passes, no plan>"
    assert (
        repr(cascade.settings)
        == f"<Settings: {len(cascade.settings)} settings, safest first; print it for all of them>"
    )
    assert len(str(cascade.settings).splitlines()) >= len(cascade.settings) + 2
    assert str(mlp.settings) == "no setting was shown to keep a budget"
    shown = cascade.plan.certificate
    assert shown is not None
    assert repr(shown).startswith("<Certificate: flip at most 2 % with 90 % confidence, ")
    texts = [*map(repr, (mlp, cascade, shown)), *str(cascade.settings).splitlines()]
    assert max(map(len, texts)) <= 100
