"""Random small modules, transformed and compared with the original: nothing may be wrong without a word.

Twelve of them by default, `-m slow` runs 60, and `python -m tests.property` runs 2,000 and prints the table.
"""

import logging
from collections.abc import Iterator, Sequence

import pytest

from tests.property.calls import SIZES
from tests.property.oracle import examine
from tests.property.outcome import KINDS, Outcome
from tests.property.report import (
    LEAST_ACCEPTED,
    LEAST_SHARE,
    accepted_share,
    failures,
    shares,
    table,
    taken_share,
)

# Seeds. In the long form, faults of every kind were found when there were any.
SHORT, LONG = range(128, 136), range(88, 128)
DRAWN = 2000


@pytest.fixture(scope="module", params=[SHORT, pytest.param(LONG, marks=pytest.mark.nightly)], ids=["short", "long"])
def outcomes(request: pytest.FixtureRequest) -> Iterator[Sequence[Outcome]]:
    logging.disable(logging.WARNING)  # torch traces every export for whoever listens, and pytest does
    try:
        yield [examine(number) for number in request.param]
    finally:
        logging.disable(logging.NOTSET)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_silently_wrong(outcomes: Sequence[Outcome], kind: str) -> None:
    found = failures(outcomes, lambda o: o.wrong.get(kind, ""))
    assert not found, found


def test_errors_are_the_projects_own(outcomes: Sequence[Outcome]) -> None:
    found = failures(outcomes, lambda o: o.crashed)
    assert not found, found


def test_valid_modules_are_accepted(outcomes: Sequence[Outcome]) -> None:
    assert accepted_share(outcomes) >= LEAST_ACCEPTED, table(outcomes)


def test_other_sizes_are_taken(outcomes: Sequence[Outcome]) -> None:
    """Refusing them would be right, and of no use."""
    assert taken_share(outcomes, SIZES) >= LEAST_ACCEPTED, table(outcomes)


def test_every_feature_is_drawn_often() -> None:
    rare = {name: share for name, share in shares(DRAWN, 0).items() if share < LEAST_SHARE}
    assert not rare
