"""Beside workers: what is timed there, and what is said of it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import nn

from dendrofx.compare import busy
from dendrofx.compare.bench import Bench
from dendrofx.compare.busy import run_busy
from dendrofx.compare.prepare import STATIC
from dendrofx.compare.records import AGAIN, BusyRace, Record, Row
from dendrofx.compare.summary import summary
from dendrofx.compare.variants import Variant
from dendrofx.compare.verdict import verdict
from dendrofx.machine.race import Race, Timing
from dendrofx.values.inputs import Inputs
from tests.made_records import MACHINE, record, row


def raced(threads: int, again: float = 10.0, **ms: float) -> BusyRace:
    """A race in which the original takes 10 ms."""
    named = {"scripted": 10.0, **{name.replace("_", "-"): value for name, value in ms.items()}, AGAIN: again}
    return BusyRace(2, Race({name: Timing((t,) * 3) for name, t in named.items()}, 3, 0.0, threads))


def table(*races: BusyRace, rows: Sequence[Row] = ()) -> Record:
    """A table whose routed row is twice as fast as the original where nobody disturbs it."""
    return replace(record(*rows), busy=list(races))


@pytest.mark.parametrize(("races", "says"), [
    ([raced(2, routed=12.0), raced(1, routed=5.9)], ["Beside 2 workers routed is 0.83 x: one thread makes it 1.69 x."]),
    ([raced(2, routed=20.0), raced(1, routed=10.5)], ["Beside 2 workers routed is 0.50 x: one thread leaves it at 0.95 x."]),
    ([raced(2, routed=20.0)], ["Beside 2 workers routed is 0.50 x."]),
    ([raced(2, routed=8.0, static_light=15.0), raced(1, routed=5.0, static_light=4.0)],
     ["Beside 2 workers one light form on every row is 0.67 x: one thread makes it 2.50 x."]),
    ([raced(2, routed=10.2), raced(1, routed=5.0)], []),  # a tie
    ([raced(2, again=15.0, routed=16.0), raced(1, routed=5.0)], []),  # 0.78 x, no further off than the original itself
    ([raced(2, always_full=20.0), raced(1, always_full=20.0)], []),  # slower with nobody beside it, too
    ([raced(1, routed=20.0)], []),  # what one thread does is no neighbour's doing
    ([], []),
])  # fmt: skip
def test_a_row_that_neighbours_make_slower_is_named(races: list[BusyRace], says: list[str]) -> None:
    made = table(*races)
    assert [line for line in verdict(made) if line.startswith("Beside")] == says
    flat = " ".join(summary([made], MACHINE).split())
    assert all(line in flat for line in says)
    assert ("Beside 2 workers on" in flat) is bool(races)


def test_the_lines_of_the_summary() -> None:
    made = table(raced(2, routed=12.0, static_light=9.0), raced(1, routed=5.9, static_light=5.0))
    text = summary([made, replace(made, batch=1)], {**MACHINE, "crowded": "4 busy processes on 2 cores: fewer"})
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("Beside 2 workers   "))
    assert lines[start : start + 4] == [
        "Beside 2 workers                    on 2 threads               on 1 thread",
        "speed-up, mean call          routed   one light*       routed   one light*",
        "batch 64                       0.83         1.11         1.69         2.00",
        "batch 1                        0.83         1.11         1.69         2.00",
    ]
    assert all(len(line) <= 100 for line in lines)
    assert len(lines) <= 40
    assert "). 4 busy processes on 2 cores: fewer" in " ".join(text.split())


def test_three_rows_at_two_thread_counts_fit_a_line() -> None:
    ms = {"lossless": 5.0, "routed-1%": 4.0, "routed-7.5%": 3.0, "static-light": 3.0}
    races = [raced(threads, **ms) for threads in (2, 1)]
    text = summary([table(*races)], MACHINE)
    lines = text[text.index("Beside 2 workers") :].split("\n\n")[0].splitlines()
    assert lines[1].split() == ["speed-up,", "mean", "call", *["lossless", "routed-1%", "routed-7.5%"] * 2]
    assert all(len(line) <= 100 for line in lines)


def test_in_json_every_row_by_thread_count() -> None:
    eager = row("eager", 10.0)
    body = table(raced(2, routed=12.5), raced(1, routed=5.0), rows=[eager]).to_json()["busy"]
    assert [(b["workers"], b["threads"], b["aa_ratio"]) for b in body] == [(2, 2, 1.0), (2, 1, 1.0)]
    assert body[0]["variants"][1] == {
        "name": "routed",
        "latency_ms": {"mean": 12.5, "p50": 12.5, "p95": 12.5},
        "speedup_vs_scripted": 0.8,
    }
    assert record(eager).to_json()["busy"] == []


@pytest.mark.parametrize(("threads", "refused", "wanted"), [(2, False, [2, 1]), (1, False, [1]), (2, True, [])])
def test_what_is_timed_beside_them(
    threads: int, refused: bool, wanted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    beside: list[str] = []

    @contextmanager
    def standing(count: int) -> Iterator[tuple[int, ...]]:
        beside.append("come")
        yield tuple(range(count))
        beside.append("gone")

    class Made(Bench):
        def __init__(self) -> None:
            self.prepared = record(refused=refused).prepared
            self.timed, self.seconds, self.seed = [Inputs.of(torch.zeros(1))], 0.0, 0

    monkeypatch.setattr(busy, "neighbours", standing)
    variants = {
        name: Variant(name, nn.Identity(), False, None, None, 0.0) for name in ("scripted", "routed", STATIC, "eager")
    }
    torch.set_num_threads(threads)
    try:
        found = run_busy(Made(), variants)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(1)
    assert [b.threads for b in found] == wanted
    assert all(b.rows == ["routed", STATIC] and b.workers == 2 for b in found)
    assert beside == (["come", "gone"] if wanted else [])
