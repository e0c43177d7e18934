"""Prices by hand: what a site's parts predict, and when that pays."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dendrofx.gates import EnergyGate, ResidualGate
from dendrofx.light import Int8, LowRank, Prepacked, Transposed
from dendrofx.rewriting.rewrite import Branches
from dendrofx.runtime.fused_int8 import FusedInt8Linear
from dendrofx.runtime.scores import EnergyScore
from dendrofx.search.choose import Candidate
from dendrofx.search.cost import RowMacs, SiteTimes
from dendrofx.search.estimates import (
    MOST_COUNTED,
    MOST_MEASURED,
    CostEstimate,
    ExactForm,
    Measured,
    cheapest,
    counted,
    regions_beyond,
)

NAMES = ("LowRank(rank=1, basis='weight')", "EnergyGate()", "plain")
FULL = ((1, 1.0), (16, 2.5), (64, 6.0), (256, 10.0))


def times(
    rows: int = 256, block: float = 10.0, light: float = 2.0, moved: float = 0.01, **full: tuple[tuple[int, float], ...]
) -> SiteTimes:
    """0.5 ms for the gate, 0.1 to find that no row is hard; `full_block`, `full_packed`: the full branches' times."""
    named = {"block": full.get("full_block", FULL)} | (
        {"Prepacked()": full["full_packed"]} if "full_packed" in full else {}
    )
    return SiteTimes(rows, block, named, {(NAMES[0], NAMES[2]): light}, {(NAMES[0], NAMES[1]): 0.5}, 0.1, moved)


def candidate(skill: float | None = None, gate: EnergyGate | ResidualGate = EnergyGate()) -> Candidate:  # noqa: B008
    branches = Branches(LowRank(1), nn.Linear(4, 5, bias=False), gate, nn.Linear(4, 1))
    return Candidate(branches, torch.ones(1), torch.ones(1), skill, 100)


# ---------------------------------------------------------------------------------------------------- what is predicted


@pytest.mark.parametrize(("activity", "wanted"), [
    (0.0, 2.6),
    (1.0, 2.6 + 10.0 + 2.56),
    (0.25, 2.6 + 6.0 + 0.64),  # that no row of 256 is hard never happens
    (0.125, 2.6 + (2.5 + 3.5 * 16 / 48) + 0.32),  # 32 rows, between 16 and 64
])  # fmt: skip
def test_a_call_of_256_rows(activity: float, wanted: float) -> None:
    assert times().predict(*NAMES, "block", activity) == pytest.approx(wanted)


def test_a_rare_hard_row_is_paid_for_in_the_calls_that_have_one() -> None:
    some = 1 - (255 / 256) ** 256
    hard = 1 / some  # in a call that has any
    wanted = 2.6 + some * (1.0 + 1.5 * (hard - 1) / 15 + 0.01 * hard)
    assert times().predict(*NAMES, "block", 1 / 256) == pytest.approx(wanted)
    assert times().predict(*NAMES, "block", 1e-300) == 2.6


@pytest.mark.parametrize(("activity", "wanted"), [(0.0, 2.6), (1.0, 0.6 + 1.0), (0.25, 0.75 * 2.6 + 0.25 * 1.6)])
def test_a_call_of_one_row_takes_one_branch_and_moves_nothing(activity: float, wanted: float) -> None:
    one = times(1, 1.0, moved=9.0, full_block=((1, 1.0),))
    assert one.predict(*NAMES, "block", activity) == pytest.approx(wanted)


@pytest.mark.parametrize("reports", ["evidence", "scales"])
def test_a_gate_that_reads_the_light_branch_pays_for_it_in_a_call_of_one_hard_row(reports: str) -> None:
    one = replace(times(1, 1.0, full_block=((1, 1.0),)), light={(NAMES[0], reports): 2.0})
    assert one.predict(NAMES[0], NAMES[1], reports, "block", 1.0) == pytest.approx(2.6 + 1.0)


ms = st.floats(0.001, 100.0)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.lists(ms, min_size=4, max_size=4), ms, st.floats(0.0, 1.0), st.integers(2, 300))
def test_more_hard_rows_never_cost_less(full: list[float], light: float, moved: float, rows: int) -> None:
    curve = tuple(zip((1, 16, 64, 256), sorted(full), strict=True))
    site = times(rows, 10.0, light, moved, full_block=curve)
    costs = [site.predict(*NAMES, "block", a / 40) for a in range(41)]
    assert all(a <= b * (1 + 1e-9) for a, b in pairwise(costs))
    cut = site.break_even(*NAMES, "block")
    assert 0 <= cut <= 1
    assert all((c < 10.0) == (a / 40 < cut) for a, c in enumerate(costs) if abs(a / 40 - cut) > 1e-6)


@pytest.mark.parametrize(("light", "block", "wanted"), [
    (25.0, 256.0, 0.9),  # a hard row costs 1 ms: 25.6 + 256 a = 256
    (300.0, 256.0, 0.0),
    (25.0, 999.0, 1.0),
])  # fmt: skip
def test_break_even(light: float, block: float, wanted: float) -> None:
    linear = times(256, block, light, 0.0, full_block=((1, 1.0), (256, 256.0)))
    assert linear.break_even(*NAMES, "block") == pytest.approx(wanted, abs=1e-9)


def test_what_was_timed_is_known() -> None:
    assert times().knows(*NAMES)
    for other in (("Int8()", *NAMES[1:]), (NAMES[0], "NoiseGate()", "plain"), (*NAMES[:2], "scales")):
        assert not times().knows(*other)


# ------------------------------------------------------------------------------------------------------- what pays


@pytest.mark.parametrize(("again", "light", "pays"), [
    (10.0, 8.8, True), (10.4, 8.8, True), (11.0, 8.8, False), (9.0, 8.8, False), (11.0, 7.8, True),
])  # fmt: skip
def test_where_a_block_differs_from_itself_a_form_pays_by_a_wider_margin(
    again: float, light: float, pays: bool
) -> None:
    """0.6 ms beside the light branch: 9.4 of 10 are enough where the block took 10 twice, 8.4 where it took 10 and 11."""
    found = Measured([replace(times(light=light), again=again)], {}).price(candidate(), 0.0)
    assert found.pays is pays
    assert ("; the block differed from itself by 1" in str(found)) is (abs(again - 10) > 0.5)


def price(cost: float, skill: float | None = None, pays: bool = True) -> CostEstimate:
    return CostEstimate(cost, pays, candidate(skill))


def test_the_cheapest_and_ties() -> None:
    a, b, c = price(0.5, 0.1), price(0.52, 0.9), price(0.53, 1.0)
    assert cheapest([a, b, c]) is b, "0.53 is not within 5 % of 0.5"
    assert cheapest([price(0.5, None), a]) is a
    low, high = price(0.5, 0.4), price(0.51, 0.4)
    assert cheapest([high, low]) is low
    assert cheapest([price(0.94, 0.1), price(0.96, 0.9, pays=False)]).cost == 0.94
    assert cheapest([price(1.2, None, pays=False), price(3.0, 1.0, pays=False)]).cost == 1.2


def test_of_ties_the_one_that_opens_no_more_regions_than_its_block() -> None:
    """At one row of 64 values neither the block nor thin products use a second thread; the 8-bit product does."""
    torch.set_num_threads(2)
    try:
        block, rows = nn.Sequential(nn.Linear(64, 64)), torch.randn(1, 64)
        gate = EnergyScore(0.0, 1.0, 0.0, 9.0)
        int8 = FusedInt8Linear(torch.ones(64, 64, dtype=torch.int8), torch.ones(64), None, None)
        thin, fused = (
            Candidate(Branches(form, light, EnergyGate(), gate), torch.ones(1), torch.ones(1), skill, 100)
            for form, light, skill in ((LowRank(1), LowRank(1).fit(block), 0.1), (Int8(7), int8, 0.9))
        )
        counts = [regions_beyond(block, c, rows) for c in (thin, fused)]
    finally:
        torch.set_num_threads(1)
    assert counts == [0, 1]
    assert [regions_beyond(block, c, rows) for c in (thin, fused)] == [0, 0], "one thread waits for nobody"
    priced = [CostEstimate(0.5, True, c, regions=n) for c, n in zip((thin, fused), counts, strict=True)]
    assert cheapest(priced).candidate is thin
    dear = replace(priced[0], cost=0.53)
    assert cheapest([dear, priced[1]]).candidate is fused, "it is not worth time on a machine of one's own"


def test_counted() -> None:
    given_ = candidate()
    assert given_.macs == RowMacs(4, 20, 100)
    found = counted(given_, 0.1, [1.0, 256.0])
    costs = [RowMacs(4, 20, 100).cost(0.1, n) for n in (1, 256)]
    assert found.cost == pytest.approx(sum(costs) / 2)
    assert found.pays
    assert str(found) == f"would cost {100 * sum(costs) / 2:.0f} % of the block"
    assert (found.ms, found.block_ms, found.break_even) == (None, None, None)
    large = next(a / 100 for a in range(101) if RowMacs(4, 20, 100).cost(a / 100, 256) > MOST_COUNTED)
    assert RowMacs(4, 20, 100).cost(large, 4096) < MOST_COUNTED
    assert not counted(given_, large, [4096.0, 256.0]).pays, "it must pay at every size"
    assert counted(given_, large, [4096.0]).pays


PACKED = {"Prepacked()": ExactForm(Prepacked(), nn.Sequential(nn.Linear(4, 4)))}


@pytest.mark.parametrize(("packed", "wanted"), [(3.0, "Prepacked()"), (12.0, "block")])
def test_measured_takes_the_faster_full_branch(packed: float, wanted: str) -> None:
    both = times(full_packed=((1, packed), (256, packed)))
    found = Measured([both], PACKED).price(candidate(), 0.25)
    assert str(found.candidate.branches.full_form or "block") == wanted
    assert found.ms == pytest.approx(both.predict(*NAMES, wanted, 0.25))
    assert found.cost == pytest.approx(both.predict(*NAMES, wanted, 0.25) / 10.0)
    assert (found.block_ms, found.rows) == (10.0, 256)
    assert found.break_even == both.break_even(*NAMES, wanted)
    settled = Measured([both], PACKED).price(candidate(), 0.25, settled=True)
    assert settled.candidate.branches.full_form is None
    assert settled.ms == pytest.approx(2.6 + 6.0 + 0.64)


def test_the_fastest_exact_form_that_is_nowhere_slower_replaces_a_block() -> None:
    forms = {str(f): ExactForm(f, nn.Sequential(nn.Linear(4, 4))) for f in (Transposed(), Prepacked())}

    def at(rows: int, transposed: float, packed: float) -> SiteTimes:
        return replace(
            times(), rows=rows, full={"Transposed()": ((rows, transposed),), "Prepacked()": ((rows, packed),)}
        )

    for transposed, packed, wanted in ((5.0, 4.0, "Prepacked()"), (3.0, 4.0, "Transposed()"), (9.9, 10.0, None)):
        found = Measured([at(256, transposed, packed)], forms).exact()
        assert (None if found is None else str(found.form)) == wanted
    small, large = at(1, 1.0, 11.0), at(256, 10.2, 2.0)  # the one that is faster on both together is slower on one
    assert str(Measured([small, large], forms).exact().form) == "Transposed()"  # type: ignore[union-attr]


def test_measured_keeps_the_named_full_branch() -> None:
    given_ = candidate()
    named = replace(given_, branches=replace(given_.branches, full_form=Prepacked(), full=nn.Identity()))
    dear = times(full_packed=((1, 20.0), (256, 20.0)))
    found = Measured([dear], {}).price(named, 0.25)
    assert found.candidate is named
    assert found.ms == pytest.approx(2.6 + 20.0 + 0.64)
    assert not found.pays


def test_measured_pays_where_it_pays_at_every_size() -> None:
    small, large = times(16, 2.7, full_block=((1, 1.0), (16, 2.7))), times()
    assert MOST_MEASURED < 2.6 / 2.7
    assert Measured([large], {}).price(candidate(), 0.0).pays
    found = Measured([small, large], {}).price(candidate(), 0.0)
    assert not found.pays
    assert found.cost == pytest.approx((2.6 / 2.7 + 0.26) / 2)
    assert str(Measured([large], {}).price(candidate(), 0.0)) == (
        f"would take 2.6 ms where the block takes 10 (256 rows; it breaks even at {100 * large.break_even(*NAMES, 'block'):.1f}"
        " % activity)"
    )
    assert not Measured([small, replace(large, gate={})], {}).knows(candidate())
    assert not Measured([large], {}).knows(candidate(gate=ResidualGate()))
