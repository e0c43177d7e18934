"""Each row's way, score and true deviation, against what the module counts and what its branches compute."""

import copy

import pytest
import torch
from torch import Tensor, nn

import dendrofx
from dendrofx.rewriting.cascade import cascade_parts
from dendrofx.values.measure import deviation
from tests.made import made


@pytest.mark.parametrize("kind", ["mlp", "residual", "gate-reads-light", "padded"])
def test_ways_are_those_that_the_module_counts(kind: str) -> None:
    it = made(kind)
    found, counts = dendrofx.explain(it.module, it.rows), _counted(it.module, it.rows)
    assert [s.site for s in found.sites] == [s.name for s in it.plan.routed]
    for site in found.sites:
        dead = int(site.dead.sum())
        assert int(site.hard.sum()) == counts[site.site]["hard_rows"]
        assert [site.ways.count(way) for way in ("full", "dead")] == [int(site.hard.sum()), dead]
        assert bool((site.score[site.light] < site.tolerance).all())
        assert int(site.deviation.isnan().sum()) == dead


def test_a_site_without_gate_has_no_scores_and_is_light() -> None:
    it = made("no-gate")
    (site,) = dendrofx.explain(it.module, it.rows[:300]).sites
    assert set(site.ways) == {"light"}
    assert bool(site.score.isnan().all())
    assert bool((site.deviation > 0).all())


def _counted(module: nn.Module, rows: object) -> dict[str, dict[str, int]]:
    with torch.no_grad():
        output = module.forward_counted(**rows) if isinstance(rows, dict) else module.forward_counted(rows)
    return output[1]  # type: ignore[no-any-return]


def test_deviation_is_the_light_branch_s_from_the_block() -> None:
    it = made("mlp")  # its only site is the whole model
    (site,) = dendrofx.explain(it.module, it.rows).sites
    every = copy.deepcopy(it.module)
    dendrofx.set_tolerances(every, {"0..2": float("inf")})
    with torch.no_grad():
        light, full = every(it.rows), it.model(it.rows)
    judged = site.score.isfinite() & (full.norm(dim=1) > 1e-6)
    torch.testing.assert_close(site.deviation[judged], deviation(full, light)[judged], rtol=1e-3, atol=1e-5)
    assert bool((site.deviation[:300] > 0).all())


def test_the_tolerance_in_force_counts() -> None:
    it = made("residual")
    changed = copy.deepcopy(it.module)
    dendrofx.set_tolerances(changed, {"stem": 0.0})
    found = dendrofx.explain(changed, it.rows)
    assert found["stem"].tolerance == 0
    assert set(found["stem"].ways) == {"full"}
    assert set(found["head"].ways) == {"light"}
    with pytest.raises(dendrofx.InputError, match=r"'neck' is not routed here: stem, fc1\.\.fc2, head"):
        found["neck"]


def test_dead_rows_are_where_the_mask_says() -> None:
    it = made("padded")
    (site,) = dendrofx.explain(it.module, it.rows).sites
    mask: Tensor = it.rows["mask"]
    alive = (mask != 0) | ~mask.any(1, True)  # a sample without live rows keeps all of them
    assert torch.equal(site.dead, ~alive.flatten())
    assert torch.equal(site.sample, torch.arange(len(mask)).repeat_interleave(mask.size(1)))
    assert torch.equal(site.place, torch.arange(mask.size(1)).repeat(len(mask)))


def test_samples_of_a_cascade() -> None:
    it = made("cascade")
    found = dendrofx.explain(it.module, it.rows)
    (site,) = found.sites
    assert site.site == "model"
    assert int(site.hard.sum()) == _counted(it.module, it.rows)["model"]["hard_rows"] > 0
    parts = cascade_parts(it.module)
    assert parts is not None
    with torch.no_grad():
        light, full = parts[0].forward([it.rows])[0], it.model(it.rows)
    torch.testing.assert_close(site.deviation, deviation(full, light))
    assert str(found).splitlines()[0].split() == ["site", "samples", "light", "full", "dead", "tolerance", "mean", "deviation",
                                                  "largest"]  # fmt: skip


def test_few_rows_are_all_printed_and_of_many_the_nearest_and_the_worst() -> None:
    it = made("mlp")
    few = str(dendrofx.explain(it.module, it.rows[:3])).splitlines()
    assert [line.split()[1:3] for line in few[-3:]] == [[str(i), "light"] for i in range(3)]
    found = dendrofx.explain(it.module, it.rows)
    (site,) = found.sites
    lines = str(found).splitlines()
    worst = int(torch.where(site.light, site.deviation, -1).argmax())
    nearest = int(site.nearness.argmin())
    assert lines[lines.index(f"nearest to the tolerance, of {len(it.rows)}:") + 2].split()[1] == str(nearest)
    assert lines[lines.index("light with the largest deviation:") + 2].split()[1] == str(worst)
    assert len(lines) < 20
    assert max(map(len, lines)) <= 100


def test_where_nothing_is_routed_it_says_so() -> None:
    it = made("nothing-routed")
    found = dendrofx.explain(it.module, it.rows)
    assert found.sites == ()
    assert str(found).startswith("nothing is routed: every row takes the original block (1 sites refused")


def test_a_module_without_its_original_is_refused() -> None:
    with pytest.raises(dendrofx.InputError, match="which holds the original, got a Linear"):
        dendrofx.explain(nn.Linear(2, 2), torch.zeros(1, 2))
