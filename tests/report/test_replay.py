"""The replay: what it says of one site and of a cascade is what the module does; elsewhere both ends are."""

import pytest

from dendrofx.compare.points import at, everywhere
from dendrofx.report.collect import far
from dendrofx.report.given import Given
from dendrofx.report.record import record
from dendrofx.report.replay import Replay
from dendrofx.report.sweep import ALL_LIGHT, NONE_LIGHT, ends, quality
from dendrofx.runtime.scores import UNJUDGED
from tests.made import made


def replay_of(kind: str) -> tuple[Given, Replay]:
    """Return what a report on a made module would replay."""
    given = Given.of(made(kind).module, [made(kind).rows], None, None)
    ran = ends(given)
    return given, record(given, far(ran[ALL_LIGHT]), far(ran[NONE_LIGHT]))


@pytest.mark.parametrize("kind", ["mlp", pytest.param("cascade", marks=pytest.mark.slow), "full-pruned"])
def test_one_score_a_sample_is_exact(kind: str) -> None:
    given, replay = replay_of(kind)
    assert replay.exact
    assert replay.chosen is not None
    hard = set()
    for factor in (0.0, *(replay.factor_at(a) for a in (0.9, 0.4, 0.1)), replay.chosen):
        seen, ran = replay.at(factor), quality(given, at(given.module, replay.tolerances(factor)))
        assert (seen.hard, seen.activity) == (ran.hard, pytest.approx(ran.activity))
        assert (seen.mean, seen.p99) == pytest.approx((ran.mean, ran.p99), rel=1e-4, abs=1e-6)
        hard.add(seen.hard)
    assert len(hard) >= 4


@pytest.mark.parametrize("kind", ["residual", "padded"])
def test_a_prediction_is_right_at_both_ends_and_rises_between(kind: str) -> None:
    given, replay = replay_of(kind)
    assert not replay.exact
    for factor, tolerance in ((0.0, 0.0), (replay.all_light, 2 * UNJUDGED)):
        seen, ran = replay.at(factor), quality(given, everywhere(given.module, tolerance))
        assert seen.hard == ran.hard
        assert seen.mean == pytest.approx(ran.mean, rel=1e-4, abs=1e-6)
    means = [replay.at(f).mean for f in replay.positions()]
    assert means == sorted(means)
    assert means[-1] > 1e-4


def test_rows_belong_to_their_samples() -> None:
    given, replay = replay_of("padded")
    (batch,) = given.batches
    alive = given.alive(batch)
    assert alive is not None
    lengths = alive.sum(1).tolist()
    own = [int((replay.share[replay.sample == i] > 0).sum()) for i in range(given.samples)]
    assert own == lengths
    assert len(set(lengths)) > 2
