"""The ascending walk: its grid, its stop, its limit, and whether it keeps the budget on rows it has not seen."""

import math
import statistics
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import dendrofx
from dendrofx.guarantee.losses import Seen
from dendrofx.runtime.scores import UNJUDGED
from dendrofx.search.calibrate import (
    ONE_SIDED_95,
    ONE_SIDED_97_5,
    STEPS,
    Step,
    apply_multiplier,
    multiplier_grid,
    start_of,
    upper_limit,
    walk,
)
from dendrofx.values.counts import Counts
from dendrofx.values.measure import deviation

PROPERTY = settings(derandomize=True, deadline=None, max_examples=60)
ALMOST = 1e-6  # a multiplier stands this far above the score that it makes easy


class Site(nn.Module):
    """The buffers of a routed site."""

    tolerance: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("tolerance", torch.zeros(()))


class Dial(nn.Module):
    """Stands for a routed module: row i deviates by `errors[i]` where `scores[i] < tolerance`."""

    def __init__(self, scores: Tensor, errors: Tensor) -> None:
        super().__init__()
        self.routed = nn.ModuleDict({"site": Site()})
        self.scores, self.errors = scores, errors
        self.seen: list[float] = []

    @property
    def tolerance(self) -> float:
        return float(self.routed["site"].tolerance)  # type: ignore[arg-type]

    def forward_counted(self, x: Tensor) -> tuple[Tensor, dict[str, dict[str, int]]]:
        self.seen.append(self.tolerance)
        easy = self.scores < self.tolerance
        return x + torch.where(easy, self.errors, 0.0)[:, None], {
            "site": {"rows": len(x), "hard_rows": int((~easy).sum())}
        }


class Steps(nn.Module):
    """Stands for a routed module: at tolerance t every row deviates by `by_tolerance[t]`, monotone or not."""

    def __init__(self, by_tolerance: dict[int, float]) -> None:
        super().__init__()
        self.routed = nn.ModuleDict({"site": Site()})
        self.by_tolerance = by_tolerance
        self.seen: list[int] = []

    @property
    def tolerance(self) -> float:
        return float(self.routed["site"].tolerance)  # type: ignore[arg-type]

    def forward_counted(self, x: Tensor) -> tuple[Tensor, dict[str, dict[str, int]]]:
        tolerance = round(float(self.routed["site"].tolerance))  # type: ignore[arg-type]
        self.seen.append(tolerance)
        return x * (1 + self.by_tolerance[tolerance]), {"site": {"rows": len(x)}}


def walked(
    module: nn.Module, grid: list[float], rows: int, budget: float, start: int = 0, most: float | None = None
) -> list[Step]:
    x = torch.ones(rows, 1)

    def outcome(gm: Any) -> Any:
        output, counts = gm.forward_counted(x)
        far = deviation(x, output)[:, None]
        return Seen(far, counts, far)

    return walk(module, {"site": 1.0}, grid, outcome, budget, start=start, most=most)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------- the grid


@PROPERTY
@given(st.integers(1, 300), st.integers(1, 40), st.integers(0, 1000))
def test_grid_ascends_in_even_steps_of_activity(rows: int, steps: int, seed: int) -> None:
    score = torch.rand(rows, generator=torch.Generator().manual_seed(seed))
    grid = multiplier_grid([score], [7], steps)
    assert grid == sorted(set(grid))
    assert len(grid) <= steps
    easy = [float((score.double() < g).double().mean()) for g in grid]
    assert easy[-1] == 1.0
    gaps = [b - a for a, b in zip([0.0, *easy], easy, strict=False)]
    assert max(gaps) <= 1 / steps + 1 / rows + 1e-9, "no step is wider than its share and one row"


def test_grid_by_hand() -> None:
    assert multiplier_grid([torch.tensor([4.0, 1.0, 3.0, 2.0])], [5], 2) == pytest.approx([2.0, 4.0], rel=2 * ALMOST)


def test_grid_weighs_rows_by_their_blocks_cost() -> None:
    """The second site has 9 of 10 multiply-adds: half of all activity falls inside its rows."""
    cheap, dear = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    assert multiplier_grid([cheap, dear], [1, 9], 2) == pytest.approx([3.0, 4.0], rel=2 * ALMOST)


@PROPERTY
@given(st.integers(0, 50), st.integers(1, 20), st.sampled_from([UNJUDGED, 1e27, math.inf, math.nan]))
def test_unjudged_rows_are_never_easy(judged: int, others: int, score: float) -> None:
    scores = torch.cat(
        [torch.rand(judged, generator=torch.Generator().manual_seed(judged)), torch.full([others], score)]
    )
    grid = multiplier_grid([scores], [3])
    assert bool(grid) == bool(judged)
    assert all(g <= 1 + 2 * ALMOST for g in grid)


def test_multiplier_is_scaled_by_weight_and_stays_finite() -> None:
    module = Steps({})
    apply_multiplier(module, {"site": 0.5}, 0.25)  # type: ignore[arg-type]
    assert float(module.routed["site"].tolerance) == 0.125  # type: ignore[arg-type]
    apply_multiplier(module, {"site": 1e3}, 1e38)  # type: ignore[arg-type]
    assert math.isfinite(float(module.routed["site"].tolerance))  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------- the limit


def test_upper_limit_by_hand() -> None:
    limit = upper_limit(torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64))
    assert limit == pytest.approx(0.2 + 1.645 * 0.1 / math.sqrt(3), rel=1e-12)


@pytest.mark.parametrize("values", [[], [0.0]])
def test_upper_limit_of_fewer_than_two_samples_is_infinite(values: list[float]) -> None:
    assert upper_limit(torch.tensor(values, dtype=torch.float64)) == math.inf


def test_upper_limit_of_a_deviation_that_is_not_finite_is_never_within() -> None:
    assert not upper_limit(torch.tensor([0.1, math.inf, 0.1], dtype=torch.float64)) <= 1e9


# ------------------------------------------------------------------------------------------------------- the walk


def test_walk_stops_at_the_first_failure_even_if_later_steps_would_pass() -> None:
    module = Steps({1: 0.1, 2: 0.2, 3: 0.9, 4: 0.1, 5: 0.0})
    kept = walked(module, [1.0, 2.0, 3.0, 4.0, 5.0], 10, 0.5)
    assert [s.multiplier for s in kept] == [1.0, 2.0]
    assert module.seen == [1, 2, 3]
    assert float(module.routed["site"].tolerance) == 2.0  # type: ignore[arg-type]
    assert kept[-1].mean == pytest.approx(0.2, rel=1e-6)
    assert kept[-1].counts == {"site": {"rows": 10}}


@pytest.mark.parametrize("error", [0.9, math.inf, math.nan])
def test_walk_leaves_tolerance_0_when_even_the_first_step_fails(error: float) -> None:
    module = Steps({1: error, 2: 0.0})
    assert walked(module, [1.0, 2.0], 10, 0.5) == []
    assert float(module.routed["site"].tolerance) == 0.0  # type: ignore[arg-type]


def test_walk_keeps_the_last_step_when_all_pass_and_an_empty_grid_is_tolerance_0() -> None:
    module = Steps({1: 0.1, 2: 0.2})
    assert len(walked(module, [1.0, 2.0], 10, 0.5)) == 2
    assert float(module.routed["site"].tolerance) == 2.0  # type: ignore[arg-type]
    assert walked(module, [], 10, 0.5) == []
    assert float(module.routed["site"].tolerance) == 0.0  # type: ignore[arg-type]


def test_walk_judges_by_the_limit_not_by_the_mean() -> None:
    errors = torch.tensor([0.0, 0.0, 0.0, 0.4])  # mean 0.1, limit 0.1 + 1.645 * 0.2 / 2
    assert walked(Dial(torch.zeros(4), errors), [1.0], 4, 0.2644) == []
    assert len(walked(Dial(torch.zeros(4), errors), [1.0], 4, 0.2646)) == 1
    assert pytest.approx(0.1 + ONE_SIDED_95 * 0.1, rel=1e-6) == 0.2645


@pytest.mark.parametrize(("errors", "kept"), [
    ({1: (0.0, 0.4), 2: (0.0, 0.6)}, 1),  # side by side, 0.6 of 1 beside 0 of 100 would be 0.006
    ({1: (0.4, 0.0), 2: (0.4, 0.4)}, 2),
    ({1: (0.6, 0.0)}, 0),
    ({1: (0.1, math.inf)}, 0),
    ({1: (0.1, math.nan)}, 0),
    ({1: (math.nan, 0.1)}, 0),
])  # fmt: skip
def test_walk_keeps_the_budget_in_each_output(errors: dict[int, tuple[float, float]], kept: int) -> None:
    module = Steps({})

    def outcome(gm: Any) -> Any:
        return Seen(torch.tensor([errors[round(gm.tolerance)]] * 10, dtype=torch.float64), Counts())

    steps = walk(module, {"site": 1.0}, [float(m) for m in errors], outcome, 0.5)  # type: ignore[arg-type]
    assert [(s.limits, s.mean) for s in steps] == [(errors[m], max(errors[m])) for m in list(errors)[:kept]]
    assert module.tolerance == kept


@pytest.mark.parametrize(("most", "kept"), [(None, 3), (0.41, 2), (0.21, 1), (0.19, 0)])
def test_walk_stops_where_a_single_sample_deviates_by_more_than_any_may(most: float | None, kept: int) -> None:
    errors = torch.tensor([0.0, 0.2, 0.4, 0.8])
    steps = walked(Dial(torch.tensor([0.1, 0.5, 1.5, 2.5]), errors), [1.0, 2.0, 3.0], 4, 1.0, most=most)
    assert [s.largest for s in steps] == pytest.approx([0.2, 0.4, 0.8][:kept])


@PROPERTY
@given(st.lists(st.floats(1e-6, 1e6), unique=True, max_size=40), st.floats(0, 2e6))
def test_start_is_an_eighth_of_the_steps_below_what_was_reached(grid: list[float], reached: float) -> None:
    grid = sorted(grid)
    start = start_of(grid, reached)
    passed = sum(g <= reached for g in grid)
    assert start == max(passed - 1 - math.ceil(len(grid) / 8), 0)
    assert start_of(grid, 0.0) == 0


def test_walk_starts_where_it_is_told_and_skips_what_lies_below() -> None:
    module = Steps({1: 0.9, 2: 0.9, 3: 0.1, 4: 0.9, 5: 0.1})
    assert [s.multiplier for s in walked(module, [1.0, 2.0, 3.0, 4.0, 5.0], 10, 0.5, start=2)] == [3.0]
    assert module.seen == [3, 4]
    assert module.tolerance == 3.0


def test_walk_whose_start_fails_begins_at_the_bottom_and_never_passes_the_start() -> None:
    module = Steps({1: 0.1, 2: 0.2, 3: 0.9, 4: 0.1})
    assert [s.multiplier for s in walked(module, [1.0, 2.0, 3.0, 4.0], 10, 0.5, start=2)] == [1.0, 2.0]
    assert module.seen == [3, 1, 2]
    assert module.tolerance == 2.0
    assert walked(Steps({1: 0.9, 2: 0.1, 3: 0.9}), [1.0, 2.0, 3.0], 10, 0.5, start=2) == []


def test_walk_of_two_starts_takes_the_wider_limit() -> None:
    errors = torch.tensor([0.0, 0.0, 0.0, 0.4])  # mean 0.1, limit 0.1 + 1.96 * 0.2 / 2
    assert len(walked(Dial(torch.zeros(4), errors), [1.0, 2.0], 4, 0.2959)) == 2
    assert walked(Dial(torch.zeros(4), errors), [1.0, 2.0], 4, 0.2959, start=1) == []
    assert len(walked(Dial(torch.zeros(4), errors), [1.0, 2.0], 4, 0.2961, start=1)) == 1
    assert pytest.approx(0.1 + ONE_SIDED_97_5 * 0.1, rel=1e-6) == 0.296


# ------------------------------------------------------------------------------- the budget, on rows that were not used


def population(rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Scores, and errors that grow with them; the mean error of the easy rows passes 0.1 at about 2 rows of 3."""
    score = torch.rand(rows, generator=generator)
    return score, 0.45 * score * torch.rand(rows, generator=generator).mul(1.8)


@pytest.mark.parametrize("told", [pytest.param(False, marks=pytest.mark.slow), True])
def test_budget_is_kept_on_fresh_rows_about_19_times_in_20(told: bool) -> None:
    """Walked from the bottom, and from near where other rows ended."""
    budget, missed, used = 0.1, 0, []
    for seed in range(100):
        generator = torch.Generator().manual_seed(seed)
        others = Dial(*population(400, generator))
        grid = multiplier_grid([others.scores], [1], STEPS)
        start = start_of(grid, walked(others, grid, 400, budget)[-1].multiplier) if told else 0
        module = Dial(*population(200, generator))
        walked(module, grid, 200, budget, start)
        assert len(module.seen) <= (STEPS // 2 if told else STEPS)
        score, errors = population(20_000, generator)
        mean = float(torch.where(score < module.tolerance, errors, 0.0).mean())
        missed += mean > budget
        used.append(mean / budget)
    assert missed <= 10  # 5 expected; a walk by the mean alone misses about 50
    assert statistics.median(used) > 0.7, "the budget is used, not avoided"


def mixed(count: int, near: Tensor) -> Tensor:
    """Rows near a subspace, half of them with noise of any strength: their errors differ widely."""
    rows = 3 * torch.randn(count, near.size(1)) @ near.t() + 0.02 * torch.randn(count, near.size(0))
    return rows + torch.rand(count, 1) * (torch.rand(count, 1) < 0.5) * torch.randn_like(rows)


@pytest.mark.slow
def test_transform_keeps_its_budget_on_fresh_rows() -> None:
    budget, means = 0.05, []
    for seed in range(40):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 8)).eval()
        near = torch.linalg.qr(torch.randn(64, 8)).Q
        rows, fresh = mixed(900, near), mixed(3000, near)
        light = dendrofx.LowRank(12, "input")
        routed = dendrofx.transform(
            model, calibration=[rows], budget=budget, light=light, options=dendrofx.Options(decide=False, seed=seed)
        )
        assert routed.plan.deviation is not None
        assert routed.plan.deviation <= budget
        with torch.no_grad():
            means.append(float(deviation(model(fresh), routed(fresh)).mean()))
    assert sum(m > budget for m in means) <= 5  # 2 expected
    assert max(means) <= 1.1 * budget
    assert statistics.median(means) > 0.7 * budget, "the budget is used, not avoided"
