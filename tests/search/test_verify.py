"""The last word, on recorded races: who wins and why not, and the batches that it is taken on."""

import pytest
import torch
from torch import Tensor

from dendrofx.machine.race import Race, Timing
from dendrofx.plan.times import ModelTimes
from dendrofx.search.profiler import AGAIN, BASELINE, ROUTED
from dendrofx.search.verify import judge, site_alone, timing_batches
from dendrofx.values.inputs import Inputs
from tests.models import compressible
from tests.recorded import EVERY, LOW, decide, rows


def raced(base: float, again: float, routed: float) -> ModelTimes:
    values = zip((BASELINE, AGAIN, ROUTED), (base, again, routed), strict=True)
    return judge(Race({name: Timing((t, t, 99 * t)) for name, t in values}, 3, 0.0), 64)


@pytest.mark.parametrize(("medians", "speedup", "noise", "wins"), [
    ((10.0, 10.0, 5.0), 2.0, 0.0, True),
    ((12.0, 10.0, 5.0), 2.0, 0.2, True),
    ((10.0, 12.0, 9.0), 10 / 9, 0.2, False),
    ((10.0, 10.0, 9.8), 10 / 9.8, 0.0, False),
    ((10.5, 10.0, 9.5), 10 / 9.5, 0.05, True),
    ((10.0, 10.0, 20.0), 0.5, 0.0, False),
])  # fmt: skip
def test_judged_in_the_originals_favour(
    medians: tuple[float, float, float], speedup: float, noise: float, wins: bool
) -> None:
    found = raced(*medians)
    assert (found.batch, found.scripted_ms, found.routed_ms) == (64, 10.0, medians[2])
    assert found.noise == pytest.approx(noise)
    assert found.speedup == pytest.approx(speedup)
    assert found.wins(1.05) is wins


def test_why_it_did_not_win() -> None:
    assert (
        raced(10.0, 10.0, 9.8).reason(1.05) == "1.02 x the scripted original at batch 64 (10 ms), min_speedup is 1.05"
    )
    within = "1.11 x the scripted original at batch 64 (10 ms), within the 20 % that the original differed from itself"
    assert raced(10.0, 12.0, 9.0).reason(1.05) == within


# ------------------------------------------------------------------------------------------ batches to time it on


def numbered(count: int, start: int = 0) -> Inputs:
    return Inputs((torch.arange(start, start + count).float()[:, None],))


def values(batches: list[Inputs]) -> list[list[int]]:
    return [b.tensors[0].flatten().int().tolist() for b in batches]


def test_batches_are_cut_repeated_and_taken_as_they_are() -> None:
    assert values(timing_batches([numbered(5)], 2)) == [[0, 1], [2, 3]]
    assert values(timing_batches([numbered(3)], 7)) == [[0, 1, 2, 0, 1, 2, 0]]
    assert values(timing_batches([numbered(100)], 1)) == [[i] for i in range(8)]
    assert values(timing_batches([numbered(4), numbered(6, 4)], 4)) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    same = numbered(4)
    assert timing_batches([same], 4) == [same]
    many = timing_batches([numbered(20, 100 * i) for i in range(30)], 4)
    assert [b[0] for b in values(many)] == [100 * i for i in range(8)]


def test_single_samples() -> None:
    assert values(timing_batches([numbered(1)], 3)) == [[0, 0, 0]]
    odd = Inputs((torch.zeros(4, 2), torch.zeros(3)))  # one sample, whatever its tensors' sizes
    assert timing_batches([odd], 1) == [odd]
    assert timing_batches([odd], 2) == []
    scalar = Inputs((torch.tensor(1.0),))
    assert timing_batches([scalar], 2) == []


def test_every_tensor_is_cut_and_other_values_are_kept() -> None:
    batch = Inputs((torch.arange(6).float(),), (("mask", torch.arange(6)), ("scale", 2.0)))
    (first, *_) = timing_batches([batch], 4)
    assert first.samples == 4
    mask: Tensor = dict(first.kwargs)["mask"]
    assert mask.tolist() == [0, 1, 2, 3]
    assert dict(first.kwargs)["scale"] == 2.0


def test_a_site_alone_is_its_block_routed() -> None:
    made = decide(compressible(), None, rows(), lights=[LOW], gate=EVERY)
    branches, x = made.chosen["0..2"].branches, rows(9, 1)
    for tolerance, like in ((0.0, made.space.subject.graph), (2.0, branches.light)):
        routed = site_alone(torch.nn.Sequential(*made.space.subject.graph.children()), branches, tolerance)
        assert torch.equal(routed(x), like(x))
