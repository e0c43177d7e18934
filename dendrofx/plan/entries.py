"""The entries of a plan: a site, dead rows, repeated rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from dendrofx.gates.form import GateForm
from dendrofx.light.form import LightForm

WHOLE_SAMPLES = "samples"  # what repeats where whole samples do


@dataclass(frozen=True)
class SitePlan:
    """What became of one site.

    Attributes:
        name: the site.
        status: "routed"; "exact" where every row takes an exact, faster form of the block (`full`); "light" where it is light
            in a cascade: `light` in its light model, `full` in its full model; or "refused".
        reason: why, in words; for a refusal also the node that decided it, if any.
        shape: widths of its input, hidden values and output.
        light: the light form, None when refused.
        gate: the gate form, None when refused.
        full: the form of the full branch; None for the original block.
        tolerance: rows with a score below it take the light branch; None when refused.
        weight: the site's error that moves the model's output by one unit of deviation.
        activity: share of calibration rows that took the full branch; None without data or when refused.
        compute: effective compute over the original block's, gate and light included, on the same rows.
        skill: router skill on calibration rows used for nothing else, None without data.
        rows: rows of the call that the next figures are for, at the largest batch size; None where nothing was timed.
        block_ms: the original block, alone.
        predicted_ms: the routed site, from its parts; of a refused one its cheapest candidate.
        measured_ms: the routed site, alone.
        break_even: the activity from which routing it no longer pays.

    Example:
        >>> [(site.name, str(site.light)) for site in routed.plan.routed]
    """

    name: str
    status: Literal["routed", "exact", "light", "refused"]
    reason: str
    shape: str = ""
    light: LightForm | None = None
    gate: GateForm | None = None
    full: LightForm | None = None
    tolerance: float | None = field(default=None, metadata={"least": 0})
    weight: float | None = field(default=None, metadata={"least": 0})
    activity: float | None = None
    compute: float | None = None
    skill: float | None = None
    rows: int | None = None
    block_ms: float | None = None
    predicted_ms: float | None = None
    measured_ms: float | None = None
    break_even: float | None = None


@dataclass(frozen=True)
class DeadRowsPlan:
    """What became of dead rows.

    Attributes:
        mask: the input that marks them, as the caller named it.
        status: "live" where only live rows are computed, or "refused".
        reason: what runs on live rows, or why not.
    """

    mask: str
    status: Literal["live", "refused"]
    reason: str

    def __str__(self) -> str:
        return f"dead rows of {self.mask}: {self.status}: {self.reason}"


@dataclass(frozen=True)
class RepeatedRegion:
    """A part of the graph that runs on distinct rows.

    Attributes:
        inputs: on which it depends: groups of inputs whose rows repeat together, or `samples`.
        products: Linears, and other products, in it.
        split: Linears that are split by columns, each with how many of its columns repeat.
        rows: of the calibration, or of the example; distinct: those that were computed.
    """

    inputs: str
    products: int = 0
    split: list[str] = field(default_factory=list)
    rows: int = 0
    distinct: int = 0

    @property
    def what(self) -> str:
        """What repeats, in words."""
        return WHOLE_SAMPLES if self.inputs == WHOLE_SAMPLES else f"rows of {self.inputs}"

    @property
    def repeats(self) -> bool:
        """Whether a row repeated."""
        return self.distinct < self.rows

    def __str__(self) -> str:
        does = [f"{self.products} product{'s' * (self.products != 1)}"] if self.products else []
        does += [f"part of {', '.join(self.split)}"] if self.split else []
        return f"{self.distinct} of {self.rows} {self.what} are computed: {' and '.join(does)}"


@dataclass(frozen=True)
class RepeatedRowsPlan:
    """What became of repeated rows.

    Attributes:
        inputs: whose rows repeat, as the caller named them; empty for all.
        status: "distinct" where regions run on distinct rows, or "refused".
        reason: what was rewritten, or why not.
        groups: by name the inputs, or columns of them, that are compared together.
        regions: what runs on distinct rows.
    """

    inputs: list[str]
    status: Literal["distinct", "refused"]
    reason: str
    groups: dict[str, list[str]] = field(default_factory=dict)
    regions: list[RepeatedRegion] = field(default_factory=list)

    def __str__(self) -> str:
        if self.status == "refused":
            return f"repeated rows: refused: {self.reason}"
        used = [r for r in self.regions if r.products or r.split]
        shown = [str(r) for r in used if r.repeats]
        idle = [r for r in used if not r.repeats]  # where one group is said, those that it is joined with need not be
        others = [r.what for r in idle if r.inputs in self.groups] or [r.what for r in idle if not shown]
        shown += [f"nothing repeats in this data among {', '.join(others)}"] if others else []
        return f"repeated rows: {'; '.join([*shown, self.reason])}"
