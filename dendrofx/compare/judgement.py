"""What is so: the findings about a module beside its original, each decided once, for every text that speaks of them.

Routing must beat what a user could have had without it: the cheapest light branches that keep the same budget on every row
(`static-light`). And its gate must beat a random one at the same activity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from dendrofx.compare.prepare import STATIC
from dendrofx.compare.quality import Quality
from dendrofx.compare.records import Record, Row
from dendrofx.compare.variants import Peer

# Differences within the machine's own noise are ties: within this, or within what the original differed from itself.
TIE = 0.03
# The mean deviation of sums in another order, over many layers: what nothing is approximated in may deviate by.
ROUNDING = 1e-5
# The largest deviation of any test sample at which a peer is a rival of a row of ours; what the row itself has, where that is more.
PEER_LIMITS = {"lossless": ROUNDING, "routed-1%": 1e-2, "routed-7.5%": 0.14}

Pace = Literal["slower", "tie", "faster"]
Kept = Literal["kept", "misses", "uncertified"]
Rival = Literal["none", "misses", "slower", "tie", "faster"]


class Ran(Protocol):
    """A module that was run, and timed where it is worth it: a row of a table, or a point of a sweep."""

    @property
    def ms(self) -> float | None:
        """Median of a call."""

    @property
    def quality(self) -> Quality:
        """What it computes on the samples."""


@dataclass(frozen=True)
class Judgement:
    """The findings about the main row.

    Attributes:
        gain: the original's median over the row's.
        pace: what the row is beside the original.
        unreliable: why no times may be compared; empty where they may.
        certified: whether its budget was certified.
        kept: "misses" where it is above its budget on these samples, "uncertified" where it had to be certified and was not.
        rival: what one light form on every row is: not there, outside the budget, slower, as fast, or faster.
        rival_ratio: the row's median over the rival's.
        routed_tail, rival_tail: 99th percentile and maximum of the deviation; the rival's are None where it is not there.
        gate: what it is beside a random choice of as many rows; None where no gate was compared.
        exact: whether nothing may be approximated, so that no light form is a rival.
        peer, peer_ratio: the fastest peer that deviates no more, and the row's median over its own.
        neighboured: of each row that workers beside it make slower than the original, a sentence.
    """

    gain: float
    pace: Pace
    unreliable: str
    certified: bool
    kept: Kept
    rival: Rival
    rival_ratio: float
    routed_tail: tuple[float, float]
    rival_tail: tuple[float, float] | None
    gate: Literal["wins", "tie", "loses"] | None
    exact: bool = False
    peer: str = ""
    peer_ratio: float = 1.0
    neighboured: tuple[str, ...] = ()

    @property
    def fails(self) -> str:
        """Why the row cannot earn its place, whatever its rivals do; empty where it can."""
        if self.kept == "uncertified":
            return "its budget is not certified"
        if self.kept == "misses":
            return "it misses its budget on the test rows"
        if self.pace == "tie" and self.gain > 1 + TIE:
            return "the scripted baseline differs from itself by as much"
        return "" if self.pace == "faster" else "it is not faster than the scripted baseline"

    def sentences(self) -> list[str]:
        """Return what a reader needs to know, in a few short sentences."""
        if self.unreliable:
            return [f"Times are UNRELIABLE, no speed-up is claimed: {self.unreliable}.", *self.neighboured]
        within = "certified" if self.certified else "equal but for rounding" if self.exact else "within budget"
        head = f"{self.gain:.2f} x, {within}." if not self.fails else f"{self.gain:.2f} x, but {self.fails}."
        lines = [head, *([] if self.fails else self._rivalry())]
        if self.gate in ("tie", "loses"):
            lines.append("The gate is no better than a random choice of as many rows.")
        if self.peer:
            pace = f"{self.peer_ratio:.2f} x as fast" if self.peer_ratio != 1 else "as fast"
            lines.append(f"{self.peer}, the fastest peer as close to the original, is {pace}.")
        return [*lines, *self.neighboured]

    def _rivalry(self) -> list[str]:
        """Compare it with one light form on every row: what the net of gates and full branches costs, and what it buys."""
        if self.exact:
            return []
        if self.rival == "none":
            return ["No light form keeps the budget on every row."]
        if self.rival == "misses":
            return ["One light form on every row misses the budget on the test samples."]
        if self.rival == "slower":
            return [f"One light form on every row in the same budget is {1 / self.rival_ratio:.2f} x slower."]
        if self.rival == "tie":
            return ["One light form on every row is as fast in the same budget."]
        return [
            f"One light form on every row is {self.rival_ratio:.2f} x faster in the same budget.",
            f'The net costs {self.rival_ratio:.2f} x here and {self._bought()}: gate="optional" leaves it out.',
        ]

    def _bought(self) -> str:
        """Say what the net does for the tail of the deviation."""
        assert self.rival_tail is not None
        (p99, worst), (other, largest) = self.routed_tail, self.rival_tail
        if p99 < other * (1 - 3 * TIE) or worst < largest * (1 - 3 * TIE):
            p99s, largests = f"{100 * other:.2g} to {100 * p99:.2g} %", f"{100 * largest:.2g} to {100 * worst:.2g} %"
            return f"moves the p99 deviation from {p99s}, the largest from {largests}"
        return "buys nothing on these rows"


def judged(
    main: Ran,
    original_ms: float,
    limit: float,
    *,
    certified: bool | None = None,
    again: float = 1.0,
    unreliable: str = "",
    rival: Ran | None = None,
    random: Quality | None = None,
) -> Judgement:
    """Return the findings about a module, from what was measured of it and of what it is compared with.

    Args:
        main: the module.
        original_ms: median of the original's calls.
        limit: what the risk may be.
        certified: whether the budget was certified; None where nobody asked for it.
        again: the original's median over its own, A/A.
        unreliable: why no times may be compared.
        rival: one light form on every row, where there is one.
        random: quality of a random choice of as many rows, where a gate chooses them.
    """
    tie, own, risk = max(TIE, abs(again - 1)), main.ms or math.nan, main.quality.risk
    ratio = 1.0 if rival is None or rival.ms is None else own / rival.ms
    return Judgement(
        gain=original_ms / own if main.ms else 1.0,
        pace=_pace(original_ms / own, tie),
        unreliable=unreliable,
        certified=bool(certified),
        kept=kept(main.quality, limit, certified),
        rival=_rival(rival, limit, ratio, tie),
        rival_ratio=ratio,
        routed_tail=(main.quality.p99, main.quality.max),
        rival_tail=None if rival is None else (rival.quality.p99, rival.quality.max),
        gate=None if random is None else _gate(risk, random.risk),
        exact=limit == 0,
    )


def kept(quality: Quality, limit: float, certified: bool | None = None) -> Kept:
    """Return what became of a budget on samples; see `judged`."""
    return "uncertified" if certified is False else "kept" if quality.risk <= max(limit, ROUNDING) else "misses"


def _pace(times: float, tie: float) -> Pace:
    """Return what something is that is so many times as fast."""
    return "faster" if times > 1 + tie else "tie" if times >= 1 - tie else "slower"


def _rival(rival: Ran | None, limit: float, ratio: float, tie: float) -> Rival:
    if rival is None or rival.ms is None:
        return "none"
    if not rival.quality.risk <= limit:
        return "misses"
    return "slower" if 1 / ratio > 1 + tie else "tie" if 1 / ratio > 1 - tie else "faster"


def _gate(mine: float, random: float) -> Literal["wins", "tie", "loses"]:
    return "wins" if mine < random * (1 - TIE) else "tie" if mine <= random * (1 + TIE) else "loses"


def judge(record: Record) -> Judgement:
    """Return the findings about a table."""
    plan, static, random = record.prepared.plan, record.row(STATIC), record.row("random")
    found = judged(
        record.routed,
        record.race.timings["scripted"].p50,
        record.prepared.limit,
        certified=plan.certificate is not None if plan.budget else None,
        again=record.aa_ratio,
        unreliable=record.unreliable,
        rival=static if STATIC in record.prepared.static_plans else None,
        random=None if random is None or not record.prepared.routed.plan.rewrites else random.quality,
    )
    found = replace(found, neighboured=tuple(neighboured(record)))
    peer = None if record.unreliable else fastest_peer(record, record.prepared.main)
    if peer is None:
        return found
    ratio = record.ratio(record.prepared.main, peer.variant.name) or 1.0
    return replace(found, peer=peer.variant.name, peer_ratio=ratio)


def neighboured(record: Record) -> list[str]:
    """Say of each row that workers beside it make slower than the original beside them, and what one thread makes of it."""
    lines = []
    several = [b for b in record.busy if b.threads > 1]
    alone = next((b for b in record.busy if b.threads == 1), None)
    for busy in several:
        least = min(1 - TIE, busy.again, 1 / busy.again)
        for name in busy.rows:
            gain, quiet = busy.speedup(name) or 1.0, record.ratio("scripted", name) or 1.0
            if gain >= least or _pace(quiet, TIE) == "slower":
                continue
            one = None if alone is None else alone.speedup(name)
            makes = "" if one is None else f": one thread {'makes it' if one > 1 else 'leaves it at'} {one:.2f} x"
            called = "one light form on every row" if name == STATIC else name
            lines.append(f"Beside {busy.workers} workers {called} is {gain:.2f} x{makes}.")
    return lines


def peer_limit(name: str, row: Row) -> float:
    """Return what a rival of a row may deviate on its worst test sample."""
    return max(PEER_LIMITS.get(name, 0.0), row.quality.max)


def fastest_peer(record: Record, name: str) -> Row | None:
    """Return the fastest peer that deviates no more than a row of ours may; None where there is none."""
    mine = record.row(name)
    assert mine is not None
    peers = [r for r in record.rows if isinstance(r.variant.module, Peer) and r.ms is not None]
    fair = [p for p in peers if p.quality.max <= peer_limit(name, mine)]
    return min(fair, key=lambda p: p.ms or math.inf, default=None)
