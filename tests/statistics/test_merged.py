"""What is added up over parts is what one pass over all of it gives, however it is cut and in whatever order."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dendrofx.statistics.moments import Moments
from dendrofx.statistics.quantiles import ScoreCounts
from dendrofx.statistics.sample import Sample, dealt, sample_keys

ROWS = 200
PROPERTY = settings(derandomize=True, deadline=None, max_examples=40)
cuts = st.lists(st.integers(0, ROWS), min_size=1, max_size=5).map(sorted)
seeds = st.integers(0, 2**31)


def parts(cut: list[int], order: torch.Tensor) -> list[torch.Tensor]:
    """The rows' places, in parts of which some may be empty."""
    return [order[a:b] for a, b in zip([0, *cut], [*cut, ROWS], strict=True)]


def shuffled(seed: int) -> torch.Tensor:
    return torch.randperm(ROWS, generator=torch.Generator().manual_seed(seed))


@PROPERTY
@given(cuts, seeds, st.sampled_from([0.0, 1e4]))
def test_moments(cut: list[int], seed: int, away: float) -> None:
    rows = torch.randn(ROWS, 6, generator=torch.Generator().manual_seed(seed)) + away
    whole, summed = Moments.of(rows), Moments.of(rows[:0])
    for index in parts(cut, shuffled(seed)):
        summed = summed + Moments.of(rows[index])
    assert summed.count == ROWS
    torch.testing.assert_close(summed.mean, whole.mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(summed.scatter, whole.scatter, rtol=1e-9, atol=1e-9)  # far below the rows' own mean
    x = rows.double()
    torch.testing.assert_close(summed.mean_square, x.square().mean(0))
    torch.testing.assert_close(summed.covariance, torch.cov(x.t(), correction=0), rtol=1e-9, atol=1e-9)
    made = summed.rows()
    torch.testing.assert_close(made.t() @ made, x.t() @ x, rtol=1e-9, atol=1e-9 * away**2 + 1e-9)


@PROPERTY
@given(cuts, seeds)
def test_score_counts(cut: list[int], seed: int) -> None:
    scores = torch.randn(ROWS, generator=torch.Generator().manual_seed(seed)).exp()
    scores[:7] = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, -0.0, -3.0, 1e-42])
    whole, summed = ScoreCounts.of(scores), ScoreCounts.of(scores[:0])
    for index in parts(cut, shuffled(seed)):
        summed = summed + ScoreCounts.of(scores[index])
    for one, other in zip(vars(whole).values(), vars(summed).values(), strict=True):
        assert torch.equal(one, other)
    assert summed.total == ROWS
    ordered = scores.nan_to_num(torch.inf, torch.inf, -torch.inf).sort().values
    ranks = whole.counts.cumsum(0) - 1
    assert torch.equal(whole.largest, ordered[ranks])  # a quantile is a score of exactly that rank
    assert all(
        whole.activity(float(t)) == pytest.approx(1 - (r + 1) / ROWS)
        for t, r in zip(whole.largest[1:-1] * (1 + 1e-7) + 1e-44, ranks[1:-1].tolist(), strict=True)
        if t > 0
    )


@PROPERTY
@given(cuts, seeds)
def test_samples(cut: list[int], seed: int) -> None:
    columns = {"x": torch.randn(ROWS, 3), "ids": torch.arange(ROWS) % 90}
    columns["x"][100:110] = columns["x"][:10]
    columns["ids"][100:110] = columns["ids"][:10]
    keys = sample_keys(columns, seed)
    whole = Sample.of(keys[:, 1], columns, 50)
    summed = Sample.of(keys[:0, 1], {name: column[:0] for name, column in columns.items()}, 50)
    for index in parts(cut, shuffled(seed)):
        own = {name: column[index] for name, column in columns.items()}
        summed = summed + Sample.of(sample_keys(own, seed)[:, 1], own, 50)
    assert summed.seen == ROWS
    assert torch.equal(summed.keys, whole.keys)
    assert all(torch.equal(summed.columns[name], whole.columns[name]) for name in columns)
    sets = dealt(keys[:, 0], (0.4, 0.2, 0.2))
    assert torch.equal(sets[100:110], sets[:10])  # equal samples are in one set
    assert not torch.equal(keys, sample_keys(columns, seed + 1))


def test_sets_have_their_shares_and_samples_are_uniform() -> None:
    columns = {"x": torch.arange(20000).reshape(-1, 1)}
    keys = sample_keys(columns, 0)
    shares = dealt(keys[:, 0], (0.4, 0.2, 0.2)).bincount() / 20000
    torch.testing.assert_close(shares, torch.tensor([0.4, 0.2, 0.2, 0.2]), atol=0.02, rtol=0)
    kept = Sample.of(keys[:, 1], columns, 2000).columns["x"]
    assert float(kept.double().mean()) == pytest.approx(10000, rel=0.05)  # 129 is one standard error
