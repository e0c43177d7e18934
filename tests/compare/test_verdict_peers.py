"""The sentences about peers: each of our rows against the fastest one that deviates no more than it may."""

from typing import Any

import pytest

from dendrofx import Plan
from dendrofx.compare.verdict import verdict
from tests.made_records import REFUSED, record, row

MISSING = {
    "peer:aoti": "InvalidCxxCompiler: No working C++ compiler found",
    "peer:torchao-int8": "not installed: torchao",
}
EXACT = row("peer:compile", 8.0, worst=1e-6)
HALF = row("peer:openvino-bf16", 4.0, worst=8e-3)
EIGHT = row("peer:onnxruntime-int8", 2.0, worst=0.1)
WILD = row("peer:openvino-int8", 1.0, worst=0.5)


def about_peers(*rows: Any, **options: Any) -> list[str]:
    return [text for text in verdict(record(*rows, **options)) if "peer" in text]


def sentence(name: str, pace: str, peer: str, limit: str) -> str:
    return f"{name} is {pace} x as fast as {peer}, the fastest peer that deviates at most {limit} on every test sample"


def test_without_peers_nothing_is_said() -> None:
    assert about_peers() == []


def test_the_fastest_fair_peer_is_the_rival_of_each_row() -> None:
    ours = [
        row("lossless", 5.0, worst=1e-7),
        row("routed-1%", 4.0, 0.001, worst=5e-3),
        row("routed-7.5%", 3.0, worst=0.01),
    ]
    said = about_peers(*ours, WILD, EXACT, EIGHT, HALF, main="routed-7.5%", without=("routed",))
    assert said == [
        sentence("lossless", "1.60", "peer:compile", "1e-05"),
        sentence("routed-1%", "1.00", "peer:openvino-bf16", "0.01"),
        sentence("routed-7.5%", "0.67", "peer:onnxruntime-int8", "0.14"),
    ]


@pytest.mark.parametrize(("worst", "peer", "pace", "limit"), [
    (0.0, "peer:compile", "2.00", "1e-05"),
    (8e-3, "peer:openvino-bf16", "1.00", "0.008"),
    (0.7, "peer:openvino-int8", "0.25", "0.7"),
])  # fmt: skip
def test_where_our_row_deviates_more_so_may_the_peer(worst: float, peer: str, pace: str, limit: str) -> None:
    """Of two rows of one speed the worse one has the faster rivals."""
    said = about_peers(
        row("lossless", 4.0, worst=worst), EXACT, HALF, EIGHT, WILD, main="lossless", without=("routed",)
    )
    assert said == [sentence("lossless", pace, peer, limit)]


def test_a_fair_peer_is_judged_by_its_worst_sample_not_by_its_mean() -> None:
    rare = row("peer:rare", 1.0, mean=1e-9, p99=1e-9, worst=0.9)
    often = row("peer:often", 3.0, mean=0.04, p99=0.04, worst=0.04)
    assert about_peers(rare, often) == [sentence("routed", "0.60", "peer:often", "0.05")]


@pytest.mark.parametrize("worst", [0.06, 0.5, float("inf"), float("nan")])
def test_no_peer_is_fair(worst: float) -> None:
    assert about_peers(row("peer:wild", 1.0, worst=worst)) == [
        "routed: no peer keeps a deviation of 0.05 on every test sample"
    ]


def test_peers_that_did_not_run_are_listed_with_their_reasons() -> None:
    missing = [f"{name} did not run: {reason}" for name, reason in MISSING.items()]
    assert about_peers(missing=MISSING) == missing
    assert about_peers(HALF, missing=MISSING) == [sentence("routed", "0.80", "peer:openvino-bf16", "0.05"), *missing]


def test_neither_a_row_of_ours_nor_a_peer_without_times_is_a_rival() -> None:
    said = about_peers(row("static-light", 1.0, 0.001), row("peer:untimed", None), EXACT)
    assert said == [sentence("routed", "1.60", "peer:compile", "0.05")]


def test_peers_are_spoken_of_where_nothing_is_routed_too() -> None:

    lines = verdict(record(EXACT, plan=Plan([REFUSED], 0.0), missing=MISSING))
    assert lines[1] == sentence("routed", "1.60", "peer:compile", "0.05")
    assert [text.partition(" ")[0] for text in lines[2:4]] == list(MISSING)
    assert lines[-1].startswith("no gate and no light branch runs in routed: ")
