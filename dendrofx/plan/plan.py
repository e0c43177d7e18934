"""The plan: every candidate site of a model, routed or refused, and why; and where and when that was decided."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from dendrofx.gates.form import GateForm
from dendrofx.guarantee.certificate import Certificate
from dendrofx.light.form import LightForm
from dendrofx.light.routed import Routed
from dendrofx.machine.capability import Capability
from dendrofx.search.verify import ModelTimes


@dataclass(frozen=True)
class SitePlan:
    """What became of one site.

    Attributes:
        name: the site.
        status: "routed"; "exact" where every row takes an exact, faster form of the block (`full`); "light" where it is light
            in the light model of a cascade (and `full` in its full model); or "refused".
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
        predicted_ms: the routed site, from its parts.
        measured_ms: the routed site, alone.
        break_even: the activity from which routing it no longer pays.
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
class CascadePlan:
    """What became of a cascade, `scope="model"`.

    Attributes:
        status: "routed" or "refused".
        reason: of a refusal.
        light: the light model's forms, in words; the sites have them one by one.
        gate: its form.
        full: the form that the caller named for the full model; None for the original in exact forms.
        tolerance: samples with a score below it keep the light model's output.
        activity: share of the test samples that were recomputed.
        skill, margin_skill: router skill on the samples of the search, by the budget's loss and, for decisions, by the margin lost.
        cost: predicted, over the original's.
        verified: settings of the front that the test samples accepted.
        light_plan, full_plan: of the two models where their blocks are routed, see `Routed`.
    """

    status: Literal["routed", "refused"]
    reason: str
    light: str = ""
    gate: GateForm | None = None
    full: LightForm | Routed | None = None
    tolerance: float | None = field(default=None, metadata={"least": 0})
    activity: float | None = None
    skill: float | None = None
    margin_skill: float | None = None
    cost: float | None = None
    verified: int = 0
    light_plan: Plan | None = None
    full_plan: Plan | None = None

    def __str__(self) -> str:
        if self.status == "refused":
            return f"cascade refused: {self.reason}"
        from dendrofx.plan.text import number, percent

        skills = [f"router skill {self.skill:.2f}" if self.skill is not None else "router skill n/a"]
        skills += [] if self.margin_skill is None else [f"{self.margin_skill:.2f} on the margin lost"]
        full = "the original" if self.full is None else str(self.full)
        full += " (the original never runs)" if isinstance(self.full, LightForm) else ""
        return (
            f"cascade: {self.light}, then {full} for samples with {self.gate} >= {number(self.tolerance)}:"
            f" {percent(self.activity)} of the test samples; {', '.join(skills)}"
        )


@dataclass(frozen=True)
class Origin:
    """Where a plan was made: it holds there.

    Attributes:
        dendrofx, torch: versions.
        cpu, cores, capability, threads: the machine; threads are a setting and may differ.
        model, data: fingerprints of the model and of the calibration data, None without data.
        seed: of the run.
        batch_sizes: samples per call that it was decided for.
        min_speedup: what the whole model had to gain.
    """

    dendrofx: str
    torch: str
    cpu: str
    cores: int
    capability: Capability
    threads: int
    model: str
    data: str | None
    seed: int = field(metadata={"least": 0})
    batch_sizes: tuple[int, ...] = field(metadata={"least": 1})
    min_speedup: float


@dataclass(frozen=True)
class Plan:
    """The sites in graph order, and how the tolerances came about.

    Attributes:
        sites: one entry per candidate site.
        max_deviation: the budget: mean relative L2 deviation of the model's output from the original's.
        deviation: upper confidence limit of that mean on the calibration rows of the last step, of several outputs the largest;
            None without data.
        samples: calibration samples that fitted lights, fitted gates, chose among them, and set tolerances.
        multiplier: the global multiplier that the calibration ended at.
        timing: what was not timed, or how otherwise, in words: time was up, Ctrl-C, or the machine was disturbed. Empty elsewhere.
        no_sites: what the model is made of, in words, where nothing in it can be routed; empty elsewhere.
        models: the last races of the rewritten model against the original, one per batch size; empty where none was run.
        origin: None for a plan made by hand.
        capture: how the model was captured.
        dead_rows: what became of them; None where the caller named no mask.
        cascade: what became of it; None at block scope.
        budget: in words, where the caller gave one to certify; refusal: why nothing was certified, empty where it was.
        certificate: what was shown; None without a budget, or where nothing was.
        outputs: by name the outputs that the budget is about, with the upper limit of the mean deviation of each; None where it is
            about other losses. Empty where nothing is measured. not_covered: the names of the model's other outputs.

    Example:
        >>> routed.plan.save("plan.json")
        >>> again = dendrofx.transform(model, calibration=batches, plan=dendrofx.Plan.load("plan.json"))
    """

    json_notes: ClassVar[tuple[str, ...]] = ("format",)

    sites: list[SitePlan]
    max_deviation: float = field(metadata={"least": 0})
    deviation: float | None = None
    samples: tuple[int, ...] | None = None
    multiplier: float | None = None
    models: list[ModelTimes] = field(default_factory=list)
    origin: Origin | None = None
    capture: str = ""
    dead_rows: DeadRowsPlan | None = None
    cascade: CascadePlan | None = None
    budget: str = ""
    refusal: str = ""
    certificate: Certificate | None = None
    outputs: dict[str, float | None] = field(default_factory=dict)
    not_covered: list[str] = field(default_factory=list)
    timing: str = ""
    no_sites: str = ""

    @property
    def rewrites(self) -> bool:
        """Whether rows or samples are routed."""
        return bool(self.routed) or (self.cascade is not None and self.cascade.status == "routed")

    @property
    def routed(self) -> list[SitePlan]:
        """The routed sites."""
        return [s for s in self.sites if s.status == "routed"]

    def save(self, path: str | Path) -> None:
        """Write it as JSON, whole or not at all."""
        from dendrofx.plan.file import save_plan

        save_plan(self, path)

    @staticmethod
    def load(path: str | Path) -> Plan:
        """Read what `save` wrote.

        Raises:
            PlanError: no such file, or not a plan of this version.
        """
        from dendrofx.plan.file import load_plan

        return load_plan(Path(path))

    def to_json(self) -> dict[str, Any]:
        """What `save` writes."""
        from dendrofx.plan.file import plan_to_json

        return plan_to_json(self)

    def __str__(self) -> str:
        from dendrofx.plan.text import plan_text

        return plan_text(self)
