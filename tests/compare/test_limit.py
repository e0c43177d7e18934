"""What stands beside the measured rows: a limit that is counted, and what others have published."""

from dataclasses import replace
from typing import Any

import pytest

from dendrofx import Plan
from dendrofx.compare.case import Limit, Published
from dendrofx.compare.judgement import judge
from dendrofx.compare.records import Record
from dendrofx.compare.summary import summary
from dendrofx.compare.tables import footer, table
from tests.made_records import CONTROLS, MACHINE, record, row

BY_HAND = Published("packed by hand", "a pull request, for another model and another CPU", 64, {"short": 1.42})
ROWS = (row("eager", 12.0), row("scripted", 10.0), row("lossless", 5.5, 3e-7, 4e-7, 5e-7))


def lossless(limit: float | None = 2.0, order: str = "short", ms: float = 5.5, **fields: Any) -> Record:
    """A table of a lossless row that takes 5.5 ms where the original takes 10."""
    rows = (*ROWS[:2], row("lossless", ms, 3e-7, 4e-7, 5e-7))
    made = record(*rows, main="lossless", without=("routed", *CONTROLS), plan=Plan([], 0.0), **fields)
    case: Any = made.prepared.case
    case.lossless, case.orders, case.limit, case.published = (
        True,
        ("short", "long"),
        Limit("tokens", lambda _: 0.0),
        BY_HAND,
    )
    return replace(made, limit=limit, order=order)


def test_the_summary_has_the_limit_as_a_row_without_a_time() -> None:
    text = summary([lossless(), lossless(1.0, "long", 10.05)], MACHINE)
    assert all(len(line) <= 100 for line in text.splitlines())
    (first, second) = (line for line in text.splitlines() if "limit" in line)
    assert " ".join(first.split()).endswith("limit - 2.00 counted in tokens, 0.91 of it reached; published: 1.42 +")
    assert "published" not in second, "nobody has published anything for it"
    assert "#" not in first + second
    assert " + not measured here: packed by hand, a pull request, for another model and another CPU" in text
    assert "batch 64 short 1.82 x, equal but for rounding." in text
    assert "batch 64 long 1.00 x, where there is nothing to gain." in text
    assert "budget: nothing is approximated; measured on 400 samples" in text


def test_the_table_and_what_is_said_under_it() -> None:
    made = lossless()
    line = next(line for line in table(made).splitlines() if line.startswith("limit, counted"))
    assert line.split() == ["limit,", "counted", "-", "-", "-", "2.00", *["-"] * 9]
    under = footer(made, MACHINE, 0)
    assert "the limit is 2.00 x, counted in tokens and not timed; lossless reaches 0.91 of it\n" in under
    assert "published by others and not measured here: 1.42 x with packed by hand, a pull request, " in under
    assert "lossless is 1.82 x the scripted baseline and keeps the budget" in under
    assert (made.to_json()["counted_limit"], made.to_json()["published_by_others"]) == (2.0, 1.42)


@pytest.mark.parametrize("changed", [{"limit": None}, {"refused": True}])
def test_nothing_is_reached_where_there_is_no_limit_or_nothing_was_rewritten(changed: dict[str, Any]) -> None:
    assert lossless(**changed).reached is None
    assert lossless().reached == pytest.approx(10 / 5.5 / 2)
    text = summary([lossless(**changed)], MACHINE)
    assert "reached" not in text
    assert ("limit" in text) == ("refused" in changed)


def test_what_is_published_is_for_one_order_and_size() -> None:
    assert lossless().published == 1.42
    assert lossless(order="long").published is replace(lossless(), batch=32).published is None


@pytest.mark.parametrize(("deviation", "kept"), [(9e-6, "kept"), (2e-5, "misses")])
def test_a_lossless_row_may_deviate_by_rounding_alone(deviation: float, kept: str) -> None:
    made = lossless()
    made.rows[:] = [replace(r, quality=replace(r.quality, mean=deviation)) for r in made.rows]
    found = judge(made)
    assert (found.kept, found.exact) == (kept, True)
    assert not any("light form" in sentence for sentence in found.sentences())
