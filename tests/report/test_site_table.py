"""The table of routed sites: where there are many, those of one place in every layer share a row."""

import re
from dataclasses import replace

from dendrofx import Int8, LowRank, NoiseGate, SitePlan
from dendrofx.report.collect import SiteTimes
from dendrofx.report.site_table import MANY_SITES, sites
from tests.report.test_report import collected, words_of


def test_many_sites_are_folded_and_each_is_there_too() -> None:
    found = collected("mlp")
    names = [f"layers.{i}.fc" for i in range(MANY_SITES)] + ["head"]
    forms = [LowRank(4), *[Int8()] * MANY_SITES]
    plan = [
        SitePlan(n, "routed", "pays", light=f, gate=NoiseGate(), tolerance=0.1 * (i + 1))
        for i, (n, f) in enumerate(zip(names, forms, strict=True))
    ]
    counts = {n: {"hard_rows": i, "rows": 10, "original_macs": 1} for i, n in enumerate(names)}
    times = {n: SiteTimes(4.0, 0.5, float(i), 1.0) for i, n in enumerate(names)}
    many = replace(
        found, plan=replace(found.plan, sites=plan), quality=replace(found.quality, counts=counts), times=times
    )
    folded, _, each = sites(many).partition("<details>")
    heads = re.findall(r'<th scope="row">(.*?)</th>', folded.replace("<wbr>", ""))
    assert [words_of(h) for h in heads] == ["layers.*.fc x 8", "head"]
    row = "Int8() x 7, LowRank(rank=4, basis='weight') x 1 NoiseGate() block 0.1 to 0.8 4 3.5 + 0.5 1 28 of 80"
    assert row in words_of(folded)
    assert [n in each.replace("<wbr>", "") for n in names] == [True] * len(names)
    some = dict(list(counts.items())[:2])
    assert "<details>" not in sites(replace(many, quality=replace(found.quality, counts=some)))
