"""What recorded races say, on quiet machines and on busy ones; no live time is asserted on."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from dendrofx.machine.pace import AGREE, Pace, figures, noisy, pace, touched
from dendrofx.machine.race import Race, Timing
from dendrofx.search.profiler import AGAIN, BASELINE, DISTURBED, ROUTED, Profiler
from dendrofx.search.verify import judge, lost
from dendrofx.values.inputs import Inputs
from tests.races import RACES

TRUTH = 3.3  # of the 512 wide model, see `races`


def recorded(switches: float = 0.0, **ms: tuple[float, ...]) -> Race:
    return Race({name: Timing(values) for name, values in ms.items()}, 3, switches)


@pytest.mark.parametrize(("name", "reliable", "holds", "says"), [
    ("quiet", True, True, "3.37 x by the medians"),
    ("one busy process", False, False, "7.42 x by the medians, 3.11 x by CPU time on one thread"),
    ("two busy processes", True, False,
     "7.23 x by the medians, 3.08 x by the quickest calls, 3.64 x by CPU time on one thread"),
    ("two, a larger model", False, False, "30.58 x by the medians, 11.44 x by CPU time on one thread"),
    ("two, on one thread", True, False, "6.73 x by the medians, 3.55 x by CPU time on one thread"),
    ("others compute", False, False, "0.04 x by the medians, 3.59 x by CPU time on one thread"),
])  # fmt: skip
def test_no_recorded_race_flatters(name: str, reliable: bool, holds: bool, says: str) -> None:
    found = pace(RACES[name], BASELINE, AGAIN, ROUTED)
    assert (str(found), found.reliable, found.medians_hold) == (says, reliable, holds)
    assert bool(found.doubt) is (name != "quiet")
    assert bool(noisy(RACES[name], BASELINE, AGAIN, ROUTED)) is (name != "quiet")
    times = judge(RACES[name], 64)
    assert times.wins(1.05) is reliable
    assert times.speedup == found.ratio
    if reliable:
        assert TRUTH / 1.15 < times.speedup < TRUTH * 1.15
        return
    reason = str(lost([times], 1.05))
    assert reason.startswith(f"the timings are UNRELIABLE at batch 64, so nothing is decided on them: {says} (")
    assert reason.endswith("; a quiet machine, one pinned thread or tune_seconds=0 helps")


def test_the_original_against_itself_does_not_show_it() -> None:
    """The reason for all this: both entries are interrupted alike."""
    run = RACES["one busy process"]
    assert abs(run.ratio(AGAIN, BASELINE) - 1) < 0.02


def test_a_race_that_was_lost_says_so_though_another_cannot_be_relied_on() -> None:
    doubtful, slow = (judge(RACES[name], n) for name, n in (("one busy process", 64), ("quiet", 1)))
    assert str(lost([doubtful, slow], 5.0)) == (
        "the rewritten model did not win: 3.37 x the scripted original at batch 1 (2.43 ms), min_speedup is 5"
    )


@pytest.mark.parametrize(("found", "ratio", "reliable"), [
    (Pace(25.0), 25.0, True),
    (Pace(25.0, "why"), 25.0, False),  # nothing else to go by
    (Pace(25.0, "why", cpu=2.9, threads=2), 2.9, False),
    (Pace(25.0, "why", quickest=2.9, threads=2), 2.9, False),
    (Pace(25.0, "why", quickest=2.9, cpu=3.1, threads=2), 2.9, True),
    (Pace(25.0, "why", quickest=2.0, cpu=2.0 * AGREE + 0.1, threads=2), 2.0, False),
    (Pace(25.0, "why", cpu=2.9), 2.9, True),  # on one thread CPU time is what a quiet machine takes
    (Pace(3.5, "why", cpu=2.9, threads=2), 2.9, True),
    (Pace(2.0, "why", cpu=2.9, threads=2), 2.0, True),
    (Pace(0.9, "why", cpu=2.9, threads=2), 0.9, False),
])  # fmt: skip
def test_what_is_decided_on(found: Pace, ratio: float, reliable: bool) -> None:
    assert (found.ratio, found.reliable) == (ratio, reliable)


# ------------------------------------------------------------------------------------------------------------ noise


@pytest.mark.parametrize(("again", "switches", "busy"), [
    (100.0, 0.0, ""),
    (104.0, 0.0, ""),
    (96.0, 99.0, ""),
    (106.0, 0.0, "a against itself is 6 % off"),
    (94.0, 0.0, "a against itself is 6 % off"),
    (100.0, 101.0, "101 involuntary context switches per second"),
])  # fmt: skip
def test_noisy(again: float, switches: float, busy: str) -> None:
    assert noisy(recorded(switches, a=(100.0,) * 3, again=(again,) * 3), "a", "again") == busy


@pytest.mark.parametrize(
    ("slow", "of", "busy"), [(20.7, 10, True), (20.7, 100, False), (1.2, 10, True), (0.8, 10, False)]
)
def test_one_call_in_ten_that_takes_much_longer_is_noise_though_all_medians_agree(
    slow: float, of: int, busy: bool
) -> None:
    ms = tuple(slow if i % of == 5 else 0.37 for i in range(200))
    run = recorded(a=ms, again=ms, b=(0.1,) * 200)
    assert noisy(run, "a", "again", "b") == (f"a: p95 {slow:.3g} ms, p50 0.37 ms" if busy else "")
    assert touched(run, run.timings) == "", "the median is none of them"


def test_batches_of_other_sizes_are_no_noise() -> None:
    ms = tuple(float(10 ** (i % 3)) for i in range(60))
    assert noisy(Race({"a": Timing(ms, batches=3), "again": Timing(ms, batches=3)}, 60, 0.0), "a", "again") == ""
    assert noisy(recorded(a=ms, again=ms), "a", "again") == "a: p95 100 ms, p50 10 ms"


@pytest.mark.parametrize(("timing", "says"), [
    (Timing((10.0,) * 9, (10.0,) * 9, (0,) * 9), ""),
    (Timing((10.0,) * 9, (8.0,) * 9), "a waited for a CPU in 20 % of its time"),
    (Timing((0.4,) * 9, (0.1,) * 9), ""),  # no scheduler takes so little
    (Timing((10.0,) * 9, (10.0,) * 9, (1, 2, 0) * 3), "a lost its CPU 9 times in 9 calls"),
    (Timing((10.0,) * 9, (10.0,) * 9, (1, 0, 0) * 3), ""),
    (Timing((200.0,) * 9, (199.0,) * 9, (2,) * 9), ""),  # ten a second: the kernel's own
    (Timing((2.0,) * 3 + (7.0,) * 6), "a took 7 ms, and 2 where it was not interrupted"),
    (Timing((2.0,) * 6 + (7.0,) * 3), ""),
    (Timing((0.010,) * 3 + (0.030,) * 6), ""),
])  # fmt: skip
def test_what_touches_a_median(timing: Timing, says: str) -> None:
    assert touched(Race({"a": timing}, 9, 0.0), ["a"]) == says


def test_parts_are_compared_by_cpu_time_where_one_of_them_was_interrupted() -> None:
    quiet, busy = RACES["quiet"], RACES["one busy process"]
    assert figures(quiet) == {name: timing.p50 for name, timing in quiet.timings.items()}
    ms = figures(busy)
    assert ms[BASELINE] / ms[ROUTED] == pytest.approx(TRUTH, rel=0.1)


# ------------------------------------------------------------------------------------------------------ the stopwatch


@pytest.fixture
def raced(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Has `race` answer with these races, in turn, and tells on how many threads each was run."""

    def answer(*races: Race) -> list[int]:
        left, threads = list(races), list[int]()

        def run(calls: Any, *args: Any, **kwargs: Any) -> Race:
            threads.append(torch.get_num_threads())
            return left.pop(0)

        monkeypatch.setattr("dendrofx.search.profiler.race", run)
        return threads

    return answer


def parts(name: str) -> tuple[Race, Race]:
    alone = RACES[name].alone
    assert alone is not None
    return RACES[name], alone


@pytest.mark.parametrize(("races", "threads", "speedup"), [
    ([RACES["quiet"]], [2], 3.37),
    ([*parts("two busy processes")], [2, 1], 3.08),
    ([RACES["two, on one thread"]], [2], 3.55),
    ([*parts("one busy process"), RACES["quiet"]], [2, 1, 2], 3.37),  # once more, and nobody disturbs it
    ([*parts("one busy process"), *parts("two, a larger model")], [2, 1, 2, 1], None),  # and no third time
])  # fmt: skip
def test_a_doubtful_race_is_run_on_one_thread_and_a_contradictory_one_again(
    races: list[Race], threads: list[int], speedup: float | None, raced: Callable[..., list[int]]
) -> None:
    seen = raced(*races)
    torch.set_num_threads(2)
    try:
        module = torch.nn.Linear(4, 4).eval()
        found = judge(Profiler(60.0, 1.05).models(module, module, [Inputs.of(torch.zeros(2, 4))]), 2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert seen == threads
    assert found.pace.reliable is (speedup is not None)
    assert speedup is None or found.speedup == pytest.approx(speedup, abs=0.01)


def test_parts_that_were_timed_on_a_disturbed_machine_are_noted_once(raced: Callable[..., list[int]]) -> None:
    raced(*parts("one busy process"), *parts("one busy process"), RACES["quiet"])
    watch = Profiler(60.0)
    module = torch.nn.Linear(4, 4).eval()
    for _ in range(3):
        found = watch.calls({(n,): (module, [Inputs.of(torch.zeros(2, 4))]) for n in (BASELINE, ROUTED)})
    assert watch.notes == [DISTURBED]
    assert found[ROUTED,] == RACES["quiet"].timings[ROUTED].p50
