"""The sentences under a table, on records made by hand."""

import re
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from dendrofx import Budget, LearnedGate, Plan, SitePlan
from dendrofx.compare.judgement import judge
from dendrofx.compare.summary import summary
from dendrofx.compare.tables import table
from dendrofx.compare.verdict import verdict
from tests.made_records import BUDGET, CERTIFICATE, CONTROLS, MACHINE, REFUSED, ROUTED, record, renamed, row
from tests.races import RACES

FORMS = "LowRank(rank=8, basis='weight')"


def line(start: str, made: Any) -> str:
    """The one sentence that begins so."""
    (found,) = [text for text in verdict(made) if text.startswith(start)]
    return found


def test_every_sentence_of_a_run_that_routes() -> None:
    assert verdict(record()) == [
        "routed is 2.00 x the scripted baseline and keeps the budget: mean deviation 5.00e-03, budget 0.01",
        f"routing earns its place: 2.00 x as fast as static-light ({FORMS}) in the same budget;"
        " p99 deviation 2.0e-02 routed, 3.0e-02 static-light",
        "the gate beats a random choice of as many rows: mean deviation 5.00e-03 routed, 1.60e-02 random, 2.00e-02 always-light",
        "overhead where routing saves nothing (always-full over scripted): +20.0 %",
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------ the main row itself


@pytest.mark.parametrize(("ms", "pace"), [
    (10.0, "1.00 x the scripted baseline"),
    (2.5, "4.00 x the scripted baseline"),
    (20.0, "SLOWER than the scripted baseline (0.50 x)"),
])  # fmt: skip
def test_its_pace(ms: float, pace: str) -> None:
    assert line("routed is ", record(row("routed", ms, 0.005))).startswith(f"routed is {pace} and keeps the budget")


@pytest.mark.parametrize(("mean", "kept"), [(0.01, "keeps"), (0.0101, "MISSES"), (float("nan"), "MISSES")])
def test_its_budget(mean: float, kept: str) -> None:
    text = line("routed is ", record(row("routed", 5.0, mean)))
    assert f"{kept} the budget: mean deviation {mean:.2e}, budget 0.01" in text


def test_of_several_outputs_the_one_that_deviates_most_is_named() -> None:
    made = row("routed", 5.0, 0.005)
    several = record(replace(made, quality=replace(made.quality, output="action")), row("eager", 11.0))
    assert "keeps the budget: mean deviation of action 5.00e-03, budget 0.01" in line("routed is ", several)
    header, _, *lines = table(several).splitlines()
    assert header.endswith("dev mean of")
    assert [text.split()[0] for text in lines if text.endswith("action")] == ["routed"]
    assert "dev mean of" not in table(record(row("eager", 11.0)))


def test_a_budget_that_was_not_certified_says_why_and_what_the_test_samples_say() -> None:
    plan = Plan([REFUSED], BUDGET, budget="flip at most 1 %", refusal="too few samples")
    made = record(row("routed", 5.0, loss=0.0123), plan=plan, budget=Budget("flip", 0.01))
    assert line("routed is ", made) == (
        "routed is 2.00 x the scripted baseline and its budget is not certified (too few samples);"
        " on the test samples, which served nothing else, it is 1.23 %"
    )


def test_a_site_that_was_timed_has_its_own_reason() -> None:
    timed = {"block_ms": 3.0, "predicted_ms": 1.0}
    wild = "not certified: the timings are UNRELIABLE at batch 256, so nothing is decided on them"
    sites = [
        SitePlan("fc", "refused", f"{REFUSED.reason}: the cheapest, ...", **timed),
        SitePlan("head", "refused", wild, **timed),
    ]
    text = summary([record(plan=Plan(sites, BUDGET), refused=True)], MACHINE)
    assert re.search(r"^  fc +refused +cheapest light form does not pay +3 -> 1$", text, re.MULTILINE)
    assert re.search(r"^  head +refused +not certified: the timings are UNRELIABLE \.\.\. +3 -> 1$", text, re.MULTILINE)


def test_where_all_sites_are_refused_the_reasons_come_first() -> None:
    made = record(plan=Plan([REFUSED, SitePlan("head", "refused", "too small")], BUDGET), refused=True,
                  shown=Plan([ROUTED], BUDGET))  # fmt: skip
    text = verdict(made)[0]
    assert text.startswith("transform refused every site and returned the original; ")
    assert text.endswith(
        "show decide=False, for those who want to look. Reasons: fc: no light form pays; head: too small"
    )


def test_where_nothing_is_routed_no_control_is_spoken_of() -> None:
    controls = ("always-full", "always-light", "static-light", "random", "oracle")
    made = record(
        renamed("lossless", "routed"), main="lossless", without=("routed", *controls), plan=Plan([REFUSED], 0.0)
    )
    lines = verdict(made)
    assert lines[0].startswith("lossless is 2.00 x the scripted baseline")
    assert lines[1:] == [
        "no gate and no light branch runs in lossless: the rows always-*, random and oracle are left out"
    ]


# ------------------------------------------------------------------------------------------------------ static-light


@pytest.mark.parametrize(("ms", "text"), [
    (5.2, f"routing earns its place: 1.04 x as fast as static-light ({FORMS}) in the same budget; "),
    (5.1, f"routing ties with static-light ({FORMS}) in the same budget, 1.02 x; "),
    (4.9, f"routing ties with static-light ({FORMS}) in the same budget, 0.98 x; "),
    (4.0, f"routing does NOT earn its place here: static-light ({FORMS}), one light form on every row in the same"
          " budget, is 1.25 x as fast; "),
])  # fmt: skip
def test_routed_against_static_light(ms: float, text: str) -> None:
    made = record(row("static-light", ms, 0.009, 0.03))
    assert line("routing ", made) == f"{text}p99 deviation 2.0e-02 routed, 3.0e-02 static-light"


def test_a_faster_static_light_that_misses_the_budget_on_the_test_rows_is_no_rival() -> None:
    wanted = f"routing earns its place: static-light ({FORMS}) misses the budget on the test rows, routed keeps it"
    assert line("routing ", record(row("static-light", 1.0, 0.011))) == wanted
    both = record(row("static-light", 1.0, 0.011), row("routed", 5.0, 0.012))
    assert line("routing ", both).startswith("routing does NOT earn its place here: ")


@pytest.mark.parametrize(("routed", "place"), [
    (row("routed", 5.0, 0.005), "routing earns its place"),
    (row("routed", 9.9, 0.005), "routing has no static rival, and does not earn its place either"),
    (row("routed", 5.0, 0.02), "routing has no static rival, and does not earn its place either"),
])  # fmt: skip
def test_without_a_static_rival_routed_must_still_be_faster_and_within_the_budget(routed: Any, place: str) -> None:
    static = Plan([REFUSED, REFUSED, SitePlan("head", "refused", "too small")], BUDGET)
    made = record(routed, without=("static-light",), static=static)
    assert line("routing ", made) == (
        f"{place}: no light form keeps the budget on every row (no light form pays; too small)"
    )


def test_a_certified_budget_is_compared_in_its_own_metric() -> None:
    plan = Plan([ROUTED], BUDGET, budget="flip at most 2 %", certificate=CERTIFICATE)
    rows = [row("routed", 5.0, 0.9, loss=0.01), row("static-light", 10.0, 0.9, loss=0.015), row("random", 5.0, 0.1, loss=0.03),
            row("always-light", 4.0, 0.1, loss=0.05)]  # fmt: skip
    made = record(*rows, plan=plan, budget=Budget("flip", 0.02))
    assert line("routing ", made).endswith(" in the same budget; flip 1 % routed, 1.5 % static-light")
    assert line("the gate ", made) == (
        "the gate beats a random choice of as many rows: mean flip 1.00e-02 routed, 3.00e-02 random, 5.00e-02 always-light"
    )


# --------------------------------------------------------------------------------------------- random, and the price


@pytest.mark.parametrize(("random", "beats"), [(0.0052, True), (0.00515, False), (0.005, False), (0.001, False)])
def test_the_gate_against_a_random_one(random: float, beats: bool) -> None:
    text = line("the gate ", record(row("random", 5.0, random)))
    assert text == (
        f"the gate {'beats' if beats else 'does NOT beat'} a random choice of as many rows:"
        f" mean deviation 5.00e-03 routed, {random:.2e} random, 2.00e-02 always-light"
    )


@pytest.mark.parametrize(("gate", "share"), [
    (LearnedGate(), ""),
    (LearnedGate(reads="light"), ", of which the light branch, which the gate reads, up to 40.0 %"),
])  # fmt: skip
def test_the_price_where_routing_saves_nothing(gate: LearnedGate, share: str) -> None:
    wanted = f"overhead where routing saves nothing (always-full over scripted): {{}} %{share}"
    assert line("overhead ", record(gate=gate)) == wanted.format("+20.0")
    assert line("overhead ", record(row("always-full", 9.5), gate=gate)) == wanted.format("-5.0")


# ------------------------------------------------------------------------------------------------- all of them at once

# What a sentence claims, as topic and side: no verdict may claim two sides of one topic.
CLAIMS = [
    (r"^transform refused every site", "routed", "no"),
    (r"^no gate and no light branch runs", "routed", "no"),
    (r"^routing (earns|ties)", "routed", "yes"),
    (r"^routing earns", "earns", "yes"),
    (r"^routing (ties|does NOT|has no static rival, and does not)", "earns", "no"),
    (r"SLOWER|it is not faster than the scripted", "faster", "no"),
    (r"^routing (earns|ties)", "faster", "yes"),
    (r"MISSES|routing.* it misses its budget|not certified", "kept", "no"),
    (r"keeps the budget:|^routing (earns|ties)", "kept", "yes"),
    (r"UNRELIABLE", "timed", "no"),
    (r"\d x (as fast|the scripted)|SLOWER|^overhead|^routing (earns|ties)|in the same budget", "timed", "yes"),
    (r"are left out", "controls", "no"),
    # what the summary says beside it
    (r"^\d.* x, (within budget|certified)", "kept", "yes"),
    (r" x, but it misses|x, but its budget is not", "kept", "no"),
    (r" x, but it is not faster", "faster", "no"),
    (r"^(No light form keeps|One light form on every row (misses|.*slower))", "earns", "yes"),
    (r"^One light form .* (faster|as fast) in the same", "earns", "no"),
    (r"^Times are UNRELIABLE", "timed", "no"),
    (r"^\d.* x, ", "timed", "yes"),
    (r"show decide=False|^the gate|^overhead", "controls", "yes"),
]
PLANS = {
    "routed": Plan([ROUTED], BUDGET),
    "refused": Plan([REFUSED, SitePlan("head", "refused", REFUSED.reason)], BUDGET),
    "exact": Plan([SitePlan("fc", "exact", "0.1 ms as Prepacked(), 0.2 as it was (64 rows)"), REFUSED], BUDGET),
    "no sites": Plan([], BUDGET, no_sites="no Linear in it: 1 LSTM"),
    "certified": Plan([ROUTED], BUDGET, budget="flip at most 2 %", certificate=CERTIFICATE),
    "not certified": Plan([REFUSED], BUDGET, budget="flip at most 2 %", refusal="too few samples"),
}
STATICS = {
    "slower": row("static-light", 8.0, 0.009, loss=0.01),
    "a tie": row("static-light", 5.0, 0.009, loss=0.01),
    "faster": row("static-light", 3.0, 0.009, loss=0.01),
    "faster and misses": row("static-light", 3.0, 0.02, loss=0.05),
    "none": None,
}


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize(
    "race",
    [
        None,
        "two busy processes",
        *(pytest.param(r, marks=pytest.mark.slow) for r in ("quiet", "one busy process", "two, on one thread")),
    ],
)
def test_no_verdict_contradicts_itself(plan: str, race: str | None) -> None:
    decided = PLANS[plan]
    for static, ms, mean, peers, live, shows in product(
        STATICS, (5.0, 9.9, 20.0), (0.005, 0.02), (False, True), (False, True), (False, True)
    ):
        budget = Budget("flip", 0.02) if decided.budget else None
        shown = None if decided.rewrites or decided.budget or not shows else PLANS["routed"]
        rival = STATICS[static]
        rows = [
            row("routed", ms, mean, loss=mean if budget else None),
            *([rival] if rival is not None else []),
            *([row("random", 5.0, 0.016, loss=0.03), row("always-light", 4.0, 0.02, loss=0.05)] if budget else []),
            *([row("peer:compile", 8.0, worst=0.01)] if peers else []),
        ]
        without = ("static-light",) if rival is None else ()
        made = record(
            *(r for r in rows if r is not None),
            without=without if (shown or decided).rewrites else CONTROLS,
            plan=decided,
            shown=shown,
            static=PLANS["refused"] if rival is None else None,
            budget=budget,
            refused=not (decided.rewrites or live),
            race=None if race is None else RACES[race],
        )
        text = summary([made], MACHINE).splitlines()
        assert len(text) <= 40
        assert max(map(len, text)) <= 100, max(text, key=len)
        lines = [*verdict(made), *([] if made.prepared.refused else judge(made).sentences())]
        claims: dict[str, set[str]] = {}
        for pattern, topic, side in CLAIMS:
            if any(re.search(pattern, text) for text in lines):
                claims.setdefault(topic, set()).add(side)
        if mean > made.prepared.limit:
            assert "yes" not in claims.get("earns", ())
        assert all(len(sides) == 1 for sides in claims.values()), (lines, claims)
        assert len(lines) == len(set(lines))
        assert all(text.count(REFUSED.reason) <= 1 for text in lines), lines
        assert ("timed" in claims) is True
        assert ("no" in claims["timed"]) is (race not in (None, "quiet"))
