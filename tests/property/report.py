"""The table of a run: by feature, and of all; refusals by their reason, silent wrong results by kind."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from tests.property.calls import FLAGS, LEFT_OUT, SAME, SIZES
from tests.property.features import FEATURES, draw
from tests.property.outcome import KINDS, Outcome

LEAST_SHARE, LEAST_ACCEPTED = 0.05, 0.8


def shares(count: int, seed: int) -> dict[str, float]:
    """The share of drawn modules that has each feature."""
    counted = Counter(name for i in range(seed, seed + count) for name in set(draw(i).features))
    return {name: counted[name] / count for name in [*dict.fromkeys([*FEATURES, *counted])]}


def accepted_share(outcomes: Iterable[Outcome]) -> float:
    """The share of the valid modules that is accepted."""
    valid = [o for o in outcomes if o.valid]
    return sum(o.accepted for o in valid) / max(len(valid), 1)


def taken_share(outcomes: Iterable[Outcome], what: str) -> float:
    """Of the calls of one sort that the original takes, the share that accepted modules take too."""
    found = [o for o in outcomes if o.accepted]
    refused, tried = sum(o.refused_calls[what] for o in found), sum(o.calls[what] for o in found)
    return 1 - refused / max(tried, 1)


def table(outcomes: Sequence[Outcome]) -> str:
    """All of it, at most 100 columns wide."""
    names = list(dict.fromkeys([*FEATURES, *(f for o in outcomes for f in o.draft.features)]))
    lines = [f"{'feature':40} {'share':>7} {'accepted':>9} {'of valid':>9} {'wrong':>6} {'crashed':>8}"]
    lines += [_row(n, [o for o in outcomes if n in o.draft.features], len(outcomes)) for n in names]
    lines += [_row("all", outcomes, len(outcomes)), ""]
    lines += _grouped("wrong", [k for o in outcomes for k in o.wrong], KINDS)
    lines += _grouped("valid but refused", [reason(o.refused) for o in outcomes if o.valid and o.refused])
    lines += _grouped("not valid and refused", [reason(o.refused) for o in outcomes if not o.valid and o.refused])
    lines += _grouped("crashed", [reason(o.crashed) for o in outcomes if o.crashed])
    lines += _grouped("checks left out", [s for o in outcomes for s in o.skipped.elements()])
    return "\n".join([*lines, *_calls(outcomes)])


def _row(name: str, outcomes: Sequence[Outcome], count: int) -> str:
    valid = [o for o in outcomes if o.valid]
    of_valid = f"{100 * accepted_share(outcomes):.0f} %" if valid else "-"
    wrong, crashed = sum(bool(o.wrong) for o in outcomes), sum(bool(o.crashed) for o in outcomes)
    share = f"{100 * len(outcomes) / max(count, 1):.1f} %"
    return f"{name:40} {share:>7} {sum(o.accepted for o in outcomes):>9} {of_valid:>9} {wrong:>6} {crashed:>8}"


def _grouped(title: str, found: Iterable[str], order: Sequence[str] = ()) -> list[str]:
    counted = Counter(dict.fromkeys(order, 0))
    counted.update(found)
    rows = [(k, counted[k]) for k in order] or counted.most_common()
    return [f"{title}: {sum(counted.values())}", *(f"  {n:>5}  {k[:91]}" for k, n in rows), ""]


def _calls(outcomes: Sequence[Outcome]) -> list[str]:
    lines = ["calls that the original takes, and of them those that the result refuses"]
    for what in (SAME, SIZES, FLAGS, LEFT_OUT):
        tried, refused = (sum(c[what] for c in found) for found in zip(*map(_counts, outcomes), strict=True))
        lines.append(f"  {what:10} {tried:>7} {refused:>7}")
    return lines


def _counts(outcome: Outcome) -> tuple[Counter[str], Counter[str]]:
    return outcome.calls, outcome.refused_calls


_PATTERNS: tuple[tuple[str, str], ...] = (
    (r" at \S.*?  `.*?`", " at a line"),
    (r"<random module \d+>:\d+", "a line"),
    (r"`.*?`", "`...`"),
    (r"\(.*", "(...)"),
    (r"-?\d+(\.\d+)?(e-?\d+)?", "N"),
)


def reason(message: str) -> str:
    """The last way that was tried, without what is this module's own."""
    lines = [line.strip() for line in message.splitlines() if line.strip() and "not tried" not in line]
    ways = [line for line in lines if line.startswith(("symbolic:", "export:", "trace:"))]
    text = (ways or lines[:1] or [""])[-1]
    for pattern, word in _PATTERNS:
        text = re.sub(pattern, word, text)
    return text[:91]


def failures(outcomes: Iterable[Outcome], of: Callable[[Outcome], str], most: int = 3) -> str:
    """The first modules of which `of` says something, each with its source and that: what a failing test prints."""
    found = [(o, of(o)) for o in outcomes if of(o)]
    shown = [f"seed {o.draft.number}: {text}\n{o}" for o, text in found[:most]]
    return f"{len(found)} modules; the first:\n\n" + "\n\n".join(shown) if found else ""
