"""The plan: every candidate site of a model, routed or refused, and why; and where and when that was decided."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from dendrofx.gates.controls import AlwaysLight
from dendrofx.gates.form import GateForm
from dendrofx.guarantee.certificate import Certificate
from dendrofx.light.exits import Exit
from dendrofx.light.form import LightForm
from dendrofx.light.routed_blocks import RoutedBlocks
from dendrofx.plan import file, text
from dendrofx.plan.entries import DeadRowsPlan, RepeatedRowsPlan, SitePlan
from dendrofx.plan.kept import footer
from dendrofx.plan.origin import Origin
from dendrofx.plan.tail import TailPlan
from dendrofx.plan.times import ModelTimes, ThreadsPlan


@dataclass(frozen=True)
class CascadePlan:
    """What became of a cascade, `scope="model"`.

    Attributes:
        status: "routed" or "refused".
        reason: of a refusal.
        light: the light model's forms, in words; the sites have them one by one.
        gate: its form.
        full: the form that the caller named for the full model; None for the original in exact forms, or what is in `found`.
        exit: where samples leave early; None where a light model runs.
        found: light forms of the full model, in words, where these decide as the original does; the sites have them one by one.
        tolerance: samples with a score below it keep the light model's output.
        activity: share of the test samples that were recomputed.
        skill, margin_skill: router skill on the samples of the search, by the budget's loss and, for decisions, by the margin lost.
        cost: predicted, over the original's.
        verified: settings that the test samples accepted.
        light_plan, full_plan: of the two models where their blocks are routed, see `RoutedBlocks`.
    """

    status: Literal["routed", "refused"]
    reason: str
    light: str = ""
    gate: GateForm | None = None
    full: LightForm | RoutedBlocks | None = None
    tolerance: float | None = field(default=None, metadata={"least": 0})
    activity: float | None = None
    skill: float | None = None
    margin_skill: float | None = None
    cost: float | None = None
    verified: int = 0
    light_plan: Plan | None = None
    full_plan: Plan | None = None
    exit: Exit | None = None
    found: str = ""

    def __str__(self) -> str:
        if self.status == "refused":
            return f"cascade refused: {self.reason}"
        full = self.found or ("the original" if self.full is None else str(self.full))
        if isinstance(self.gate, AlwaysLight):
            return f"light model on every sample: {self.light}; {full} runs samples that are not finite"
        full += " (the original never runs)" if self.found or isinstance(self.full, LightForm) else ""
        rest = full if self.exit is None else f"the rest of {full}"
        doubtful = f"samples with {self.gate} >= {text.number(self.tolerance)}"
        skills = text.skills(self.skill, self.margin_skill)
        return f"cascade: {self.light}, then {rest} for {doubtful}: {text.percent(self.activity)} of the test samples; {skills}"


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
        threads: how many a worker should have; None where nothing was timed, or on one thread.
        origin: None for a plan made by hand.
        capture: how the model was captured.
        dead_rows: what became of them; None where the caller named no mask. repeated_rows: likewise.
        cascade: what became of it; None at block scope.
        budget: in words, where the caller gave one to certify; refusal: why nothing was certified, empty where it was.
        certificate: what was shown; None without a budget, or where nothing was.
        rivals: where blocks and models were searched, what the best of each gains, or why one of them was not.
        outputs: by name the outputs that the budget is about, with the upper limit of the mean deviation of each; None where it is
            about other losses. Empty where nothing is measured. not_covered: the names of the model's other outputs.
        tail: what samples deviate by at most; None where the caller did not limit it.

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
    threads: ThreadsPlan | None = None
    repeated_rows: RepeatedRowsPlan | None = None
    rivals: str = ""
    tail: TailPlan | None = None

    @property
    def rewrites(self) -> bool:
        """Whether rows or samples are routed."""
        return bool(self.routed) or (self.cascade is not None and self.cascade.status == "routed")

    @property
    def routed(self) -> list[SitePlan]:
        """The routed sites."""
        return [s for s in self.sites if s.status == "routed"]

    @property
    def exact_full(self) -> bool:
        """Whether samples in doubt get what the original gives, to rounding."""
        cascade = self.cascade
        if cascade is None or cascade.found or cascade.full is not None or cascade.full_plan is not None:
            return False
        return cascade.exit is None or len(cascade.exit.after) < 2

    @property
    def rows_left_out(self) -> bool:
        """Whether dead or repeated rows were asked for: outputs are then equal to rounding, and captured with symbolic shapes."""
        return self.dead_rows is not None or self.repeated_rows is not None

    def save(self, path: str | Path) -> None:
        """Write it as JSON, whole or not at all."""
        file.save(self, path)

    @staticmethod
    def load(path: str | Path) -> Plan:
        """Read what `save` wrote.

        Raises:
            PlanError: no such file, or not a plan of this version.
        """
        return file.load(Plan, Path(path))

    def to_json(self) -> dict[str, Any]:
        """Return what `save` writes."""
        return file.to_json(self)

    @property
    def speedup(self) -> float | None:
        """How many times as fast the module is as the scripted original, at the largest batch size that was timed.

        Measured on the whole model; where the medians were doubtful, the least of what was not. None where nothing was timed,
        and where nothing was rewritten: then the module is the original.

        Example:
            >>> routed.plan.speedup
            2.5
        """
        if not self.models or not self._changed:
            return None
        return max(self.models, key=lambda t: t.batch).speedup

    def summary(self) -> str:
        """Return the plan in one short sentence.

        Example:
            >>> print(routed.plan.summary())
            1 of 3 sites routed: 2.50 x at batch 256, mean deviation at most 0.0091
        """
        parts = [self._kept(), "" if self.certificate else self._deviation()]
        fast = "" if self.speedup is None else f"{self.speedup:.2f} x at batch {max(t.batch for t in self.models)}"
        if fast and not max(self.models, key=lambda t: t.batch).pace.reliable:
            fast += " (UNRELIABLE)"
        if not self._changed:
            return f"{self._what()}: the outputs are the original's"
        return f"{self._what()}: {', '.join(p for p in (fast or 'not timed', *parts) if p)}"

    def __str__(self) -> str:
        lines = [line for sentence in self._sentences() for line in text.wrapped(sentence)]
        table, inside = text.table(self.sites), self._inside()
        middle = [""] if table and (lines or inside) else []
        return "\n".join([*table, *middle, *lines, *text.outputs(self.outputs, self.not_covered), *inside])

    def __repr__(self) -> str:
        return f"<Plan: {self.summary()}>"

    def _repr_html_(self) -> str:
        """Return it as a notebook shows it."""
        sentences = [*self._sentences(), *text.outputs(self.outputs, self.not_covered)]
        return text.html_table(self.sites, sentences)

    @property
    def _changed(self) -> bool:
        """Whether the module is anything but the original."""
        return self.rewrites or bool(self._left_out()) or any(s.status == "exact" for s in self.sites)

    def _left_out(self) -> list[str]:
        """Return which rows are left out without a trace."""
        dead = self.dead_rows is not None and self.dead_rows.status == "live"
        repeated = self.repeated_rows is not None and self.repeated_rows.status == "distinct"
        return ["dead rows left out"] * dead + ["repeated rows computed once"] * repeated

    def _what(self) -> str:
        """Say what was rewritten."""
        if self.cascade is not None and self.cascade.status == "routed":
            alone = isinstance(self.cascade.gate, AlwaysLight)
            return "one light model for all samples" if alone else "samples routed between two models"
        exact = sum(s.status == "exact" for s in self.sites)
        said = [f"{len(self.routed)} of {len(self.sites)} sites routed"] if self.routed or not exact else []
        said += [f"{exact} of {len(self.sites)} sites in an exact form"] if exact else []
        left = self._left_out()
        return ", ".join(said + left) if self.sites else ", ".join(left) or "nothing to route"

    def _kept(self) -> str:
        shown = self.certificate
        return "" if shown is None else f"{shown.metric} at most {100 * shown.alpha:g} % (certified)"

    def _deviation(self) -> str:
        if self.max_deviation == 0 or not self.rewrites:
            return "nothing approximated"
        if self.deviation is None:
            return "tolerances from the bound alone"
        return f"mean deviation at most {self.deviation:.3g}"

    def _sentences(self) -> list[str]:
        """Return what was measured, shown and changed, a sentence each."""
        parts = [str(part) for part in (self.cascade, self.dead_rows, self.repeated_rows) if part is not None]
        races = [text.race(t) for t in self.models]
        races += [str(self.threads)] if self.threads is not None and self._changed else []
        said = [
            *parts,
            self.rivals,
            self.capture,
            self.timing,
            *races,
            self.no_sites,
            *footer(self),
            str(self.tail or ""),
        ]
        return [s for s in said if s]

    def _inside(self) -> list[str]:
        """Return the plans of a cascade's models, where their blocks are routed."""
        lines: list[str] = []
        if self.cascade is not None:
            for which, inner in (("light", self.cascade.light_plan), ("full", self.cascade.full_plan)):
                if inner is not None:
                    lines += [f"the blocks of the {which} model:", *(f"  {line}" for line in str(inner).splitlines())]
        return lines
