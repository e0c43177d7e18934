"""Statistics of recorded times, and how callables take turns; no live time is asserted on."""

import contextlib
import time

import pytest
import torch

from dendrofx.machine.race import LEAST_ROUNDS, LONG_SECONDS, MOST_ROUNDS, Race, Timing, on_one_thread, race


def test_median_and_95th_percentile() -> None:
    timing = Timing((5.0, 1.0, 4.0, 2.0, 3.0))
    assert timing.p50 == 3.0
    assert timing.p95 == 5.0
    assert Timing((1.0, 2.0)).p50 == 1.5
    assert Timing((7.0,)).p95 == 7.0


@pytest.mark.parametrize(("n", "rank"), [(1, 1), (15, 15), (19, 19), (20, 19), (21, 20), (100, 95), (400, 380)])
def test_95th_percentile_is_the_nearest_rank(n: int, rank: int) -> None:
    """The smallest time that at least 95 % of the calls do not exceed."""
    assert Timing(tuple(float(i) for i in range(n, 0, -1))).p95 == rank


def recorded(switches: float = 0.0, **ms: tuple[float, ...]) -> Race:
    return Race({name: Timing(values) for name, values in ms.items()}, 3, switches)


def test_ratio_is_that_of_the_medians() -> None:
    run = recorded(a=(3.0, 2.0, 90.0), b=(6.0, 1.0, 7.0))
    assert run.ratio("a", "b") == 0.5
    assert run.ratio("b", "a") == 2.0


def test_callables_take_turns_on_the_same_round() -> None:
    seen: dict[str, list[int]] = {"a": [], "b": [], "c": []}
    order: list[str] = []

    def call(name: str, number: int) -> None:
        seen[name].append(number)
        order.append(name)

    run = race({name: lambda n, name=name: call(name, n) for name in seen}, seconds=0.0)  # type: ignore[misc]
    assert run.rounds == LEAST_ROUNDS
    warm = [0, 1, 2, 3]
    assert all(numbers == warm + [n for n in range(run.rounds) for _ in range(2)] for numbers in seen.values())
    assert {name: len(t.ms) for name, t in run.timings.items()} == dict.fromkeys(seen, LEAST_ROUNDS)
    turns = order[3 * len(warm) :: 2]
    assert turns == order[3 * len(warm) + 1 :: 2]  # one untimed call, then the timed one
    rounds = [tuple(turns[i : i + 3]) for i in range(0, len(turns), 3)]
    assert all(sorted(r) == ["a", "b", "c"] for r in rounds)
    assert len(set(rounds)) > 1
    assert all(ms >= 0 for t in run.timings.values() for ms in t.ms)


@pytest.mark.parametrize("long", [False, True])
def test_before_each_round_of_long_calls_there_is_a_pause(long: bool) -> None:
    seen: list[str] = []

    def call(name: str) -> None:
        seen.append(name)
        time.sleep(LONG_SECONDS if long else 0.0)

    run = race(
        {n: lambda _, n=n: call(n) for n in "ab"},  # type: ignore[misc]
        0.0,
        least_rounds=3,
        untimed_rounds=1,
        pause=lambda: seen.append("pause"),
    )
    rounds = "".join(n[0] for n in seen).replace("b", "a")
    assert rounds == ("aa" + "paa" * 3 if long else "aa" + "aaaa" * 3)
    assert run.rounds == 3


def test_the_seed_decides_the_order_and_rounds_are_capped() -> None:
    def order(seed: int) -> list[str]:
        names: list[str] = []
        race({"a": lambda n: names.append("a"), "b": lambda n: names.append("b")}, 0.0, seed)
        return names

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert race({"a": lambda n: None}, seconds=3600.0).rounds == MOST_ROUNDS


def test_every_call_leaves_wall_time_cpu_time_and_switches() -> None:
    """Sleeping takes no CPU time, computing nothing else."""

    def busy(_: int) -> None:
        end = time.thread_time() + 2e-3
        while time.thread_time() < end:
            pass

    run = race({"asleep": lambda _: time.sleep(2e-3), "busy": busy}, 0.0, batches={"busy": 3})
    for name, batches in (("asleep", 1), ("busy", 3)):
        timing = run.timings[name]
        assert len(timing.ms) == len(timing.cpu_ms) == len(timing.switches) == run.rounds
        assert timing.batches == batches
    assert max(run.timings["asleep"].cpu_ms) < 1.9
    assert min(run.timings["busy"].cpu_ms) >= 2.0
    assert run.threads == 1


def test_on_one_thread_gives_the_threads_back() -> None:
    torch.set_num_threads(2)
    try:
        seen: list[int] = []
        with contextlib.suppress(KeyboardInterrupt), on_one_thread():
            seen.append(torch.get_num_threads())
            raise KeyboardInterrupt
        assert seen == [1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
