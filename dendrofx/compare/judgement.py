"""What is so: the findings about one table, each decided once, for every text that speaks of them.

Routing must beat what a user could have had without it: the cheapest light branches that keep the same budget on every row
(`static-light`). And its gate must beat a random one at the same activity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from dendrofx.compare.prepare import STATIC
from dendrofx.compare.records import Record, Row
from dendrofx.compare.variants import Peer

# Differences within the machine's own noise are ties.
TIE = 0.03
# The largest deviation of any test sample at which a peer is a rival of a row of ours; what the row itself has, where that is more.
PEER_LIMITS = {"lossless": 1e-5, "routed-1%": 1e-2, "routed-7.5%": 0.14}

Rival = Literal["none", "misses", "slower", "tie", "faster"]


@dataclass(frozen=True)
class Judgement:
    """The findings about the main row.

    Attributes:
        gain: the scripted original's median over the row's.
        unreliable: why no times may be compared; empty where they may.
        fails: why the row cannot earn its place, whatever its rivals do; empty where it can.
        rival: what one light form on every row is: not there, outside the budget, slower, as fast, or faster.
        rival_ratio: the row's median over the rival's.
        routed_tail, rival_tail: 99th percentile and maximum of the deviation; the rival's are None where it is not there.
        gate_wins: whether the gate beats a random choice of as many rows; None where no gate was compared.
        peer, peer_ratio: the fastest peer that deviates no more, and the row's median over its own.
        certified: whether it was certified.
    """

    gain: float
    unreliable: str
    fails: str
    rival: Rival
    rival_ratio: float
    routed_tail: tuple[float, float]
    rival_tail: tuple[float, float] | None
    gate_wins: bool | None
    peer: str
    peer_ratio: float
    certified: bool

    def sentences(self) -> list[str]:
        """Return what a reader needs to know, in a few short sentences."""
        if self.unreliable:
            return [f"Times are UNRELIABLE, no speed-up is claimed: {self.unreliable}."]
        within = "certified" if self.certified else "within budget"
        head = f"{self.gain:.2f} x, {within}." if not self.fails else f"{self.gain:.2f} x, but {self.fails}."
        lines = [head, *([] if self.fails else self._rivalry())]
        if self.gate_wins is False:
            lines.append("The gate is no better than a random choice of as many rows.")
        if self.peer:
            pace = f"{self.peer_ratio:.2f} x as fast" if self.peer_ratio != 1 else "as fast"
            lines.append(f"{self.peer}, the fastest peer as close to the original, is {pace}.")
        return lines

    def _rivalry(self) -> list[str]:
        """Compare it with one light form on every row: what the net of gates and full branches costs, and what it buys."""
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


def judge(record: Record) -> Judgement:
    """Return the findings about a table."""
    routed, static, random = record.routed, record.row(STATIC), record.row("random")
    peer = None if record.unreliable else fastest_peer(record, record.prepared.main)
    return Judgement(
        gain(record),
        record.unreliable,
        fails(record),
        rival_of(record),
        1.0 if static is None or static.ms is None else (routed.ms or 0.0) / static.ms,
        (routed.quality.p99, routed.quality.max),
        None if static is None else (static.quality.p99, static.quality.max),
        None if random is None or not record.prepared.plan.rewrites else gate_wins(routed, random),
        "" if peer is None else peer.variant.name,
        1.0 if peer is None else record.ratio(record.prepared.main, peer.variant.name) or 1.0,
        record.prepared.plan.certificate is not None,
    )


def gain(record: Record) -> float:
    """Return the main row's speedup over the scripted baseline."""
    return record.speedup(record.routed, "scripted") or 1.0


def fails(record: Record) -> str:
    """Say why routing could not earn its place whatever its rivals do; nothing where it could."""
    plan = record.prepared.plan
    if plan.budget and plan.certificate is None:
        return "its budget is not certified"
    if not record.routed.loss <= record.prepared.limit:
        return "it misses its budget on the test rows"
    return "" if gain(record) > 1 + TIE else "it is not faster than the scripted baseline"


def rival_of(record: Record) -> Rival:
    """Return what `static-light` is beside the main row."""
    static = record.row(STATIC)
    if static is None or static.ms is None or STATIC not in record.prepared.static_plans:
        return "none"
    if static.loss > record.prepared.limit:
        return "misses"
    ratio = record.ratio(STATIC, record.prepared.main) or 1.0
    return "slower" if ratio > 1 + TIE else "tie" if ratio > 1 - TIE else "faster"


def gate_wins(routed: Row, random: Row) -> bool:
    """Return whether the gate beats a random choice of as many rows."""
    return routed.loss < random.loss * (1 - TIE)


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
