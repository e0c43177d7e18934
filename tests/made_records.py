"""Records made by hand: the figures of a table without a model, for tests of what is said about it."""

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from torch import nn

from dendrofx import LearnedGate, LowRank, Plan, SitePlan
from dendrofx.compare.prepare import Asked, Prepared
from dendrofx.compare.quality import Quality
from dendrofx.compare.records import AGAIN, Record, Row
from dendrofx.compare.variants import Peer, Saved, Variant
from dendrofx.gates import GateForm
from dendrofx.guarantee.certificate import Certificate
from dendrofx.machine.race import Race, Timing
from dendrofx.values.meta import RECIPE

LIGHT = LowRank(8)
ROUTED = SitePlan("fc", "routed", "light costs little", light=LIGHT, gate=LearnedGate())
REFUSED = SitePlan("fc", "refused", "no light form pays")
BUDGET = 0.01
CERTIFICATE = Certificate(
    "flip", None, 0.02, 0.05, 400, 0.0, 0.0003, "binomial", 1, 1, {"fc": 0.1}, 1.0, "m", "r", "i", "0", "2.13", "a CPU"
)


def row(
    name: str, ms: float | None, mean: float = 0.0, p99: float = 0.0, worst: float = 0.0, loss: float | None = None
) -> Row:
    """A line of the table; `peer:NAME` is a peer, `as NAME` a format that it is saved in."""
    module: nn.Module = Peer(lambda batch: batch["x"]) if name.startswith("peer:") else nn.Identity()
    module = Saved(nn.Identity()) if name.startswith("as ") else module
    quality = Quality(None, None, None, None, mean, p99, worst, None, loss)
    return Row(Variant(name, module, False, None, None, 0.0), quality, None if ms is None else Timing((ms,) * 3))


MACHINE = {"cpu": "a CPU", "cores": "2", "capability": "AVX2", "torch": "2.13", "python": "3.11"}
CONTROLS = ("always-full", "always-light", "static-light", "random", "oracle")

# A run in which routing is twice as fast as the original and static-light, and keeps a budget of 1 %.
ROWS = [
    row("scripted", 10.0),
    row("routed", 5.0, 0.005, 0.02, 0.05),
    row("always-full", 12.0),
    row("always-light", 4.0, 0.02),
    row("static-light", 10.0, 0.009, 0.03, 0.06),
    row("random", 5.0, 0.016),
    row("oracle", None, 0.001),
]


def record(
    *rows: Row,
    without: tuple[str, ...] = (),
    plan: Plan | None = None,
    static: Plan | None = None,
    missing: Mapping[str, str] | None = None,
    main: str = "routed",
    budget: Any = None,
    gate: GateForm | None = None,
    refused: bool = False,
    shown: Plan | None = None,
    race: Race | None = None,
) -> Record:
    """A record of `ROWS`, in which some are replaced, added or left out.

    Args:
        rows: by their names, in place of those of `ROWS`, or behind them.
        without: names of rows that are left out.
        plan: of the main row; shown: of its module, where it is another.
        static: of `static-light`.
        missing: peers that did not run.
        main: the row that sentences are about.
        budget: that is certified.
        gate: that the routed module has.
        refused: whether nothing was rewritten.
        race: another one than that of the rows' times, whose sentences then only tell whether to believe them.
    """
    table = {r.variant.name: r for r in [*ROWS, *rows] if r.variant.name not in without}
    decided = Plan([ROUTED], BUDGET) if plan is None else plan
    branches = {"fc": SimpleNamespace(gate_form=LearnedGate() if gate is None else gate)}
    module: Any = SimpleNamespace(plan=shown or decided, meta={RECIPE: SimpleNamespace(branches=branches)})
    names = [n for n in table if n == main or n == "lossless" or n.startswith("routed-")]
    case: Any = SimpleNamespace(
        name="made",
        title="one block",
        test=range(400),
        orders=("random",),
        dead_rows=None,
        synthetic=False,
        pictures=(),
        lossless=False,
        limit=None,
        published=None,
    )
    prepared = Prepared(
        case,
        64,
        Asked(budget=budget),
        main,
        dict.fromkeys(names, module),
        refused,
        dict.fromkeys(names, decided),
        {},
        1.0,
        {"static-light": Plan([ROUTED], BUDGET) if static is None else static},
    )
    timings = {n: r.timing for n, r in table.items() if r.timing is not None}
    own = Race({**timings, AGAIN: table["scripted"].timing or Timing((1.0,))}, 3, 0.0)
    return Record(prepared, 64, "random", 1, list(table.values()), own if race is None else race, missing=missing or {})


def renamed(name: str, of: str) -> Row:
    """A row of `ROWS` under another name."""
    found = next(r for r in ROWS if r.variant.name == of)
    return replace(found, variant=replace(found.variant, name=name))
