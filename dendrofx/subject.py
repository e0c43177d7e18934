"""`Subject`: the model as it is rewritten: its graph, on live rows where the caller named a mask, its sites, and its samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import fx, nn

from dendrofx.errors import CaptureError, InputError
from dendrofx.graph.capture import capture_call, check_sizes, remember
from dendrofx.graph.find_sites import find_sites
from dendrofx.graph.given import Given
from dendrofx.graph.sites import Selector, Site, Sites
from dendrofx.plan.entries import DeadRowsPlan, RepeatedRowsPlan
from dendrofx.plan.origin import Origin, here
from dendrofx.request import Request
from dendrofx.rewriting.dead_rows import drop_dead_rows
from dendrofx.rewriting.repeated_rows import drop_repeated_rows
from dendrofx.rewriting.repeated_samples import drop_repeated_samples
from dendrofx.values.calibration import Calibration
from dendrofx.values.dealt import Dealt
from dendrofx.values.fingerprint import model_fingerprint
from dendrofx.values.inputs import Inputs
from dendrofx.values.meta import RUNS

NO_REPEATS = "no row repeats in the inputs that it was timed on: pass inputs as the model is called with"


@dataclass(frozen=True)
class Subject:
    """What is rewritten.

    Attributes:
        original: the captured module, on all rows.
        graph: the same on live rows, or the original itself.
        sites: the selected sites of `graph`.
        data: calibration, or None.
        example: inputs, where there are any.
        model: fingerprint of the model; data has its own.
        dead: what became of dead rows; None where the caller named no mask. repeats: of repeated rows, likewise.
        unshaped: why the graph has no symbolic shapes, where they were not needed but wanted; empty where it has.
    """

    original: fx.GraphModule
    graph: fx.GraphModule
    sites: Sites
    data: Calibration | None = None
    example: Inputs | None = None
    model: str = ""
    dead: DeadRowsPlan | None = None
    repeats: RepeatedRowsPlan | None = None
    unshaped: str = ""

    @staticmethod
    def of(
        model: nn.Module,
        wrapper: str,
        example_inputs: Any,  # noqa: ANN401  (a tensor, tuple or dict: checked by Inputs.of)
        calibration: Iterable[Any] | None,
        request: Request,
        certified: bool,
    ) -> Subject:
        """Capture a model on what was given; dead rows are still in its graph.

        Args:
            model: the original.
            wrapper: what was taken off it.
            example_inputs: as `transform` takes them.
            calibration: likewise.
            request: what was asked for.
            certified: a part of the calibration is set aside to test a budget.

        Raises:
            InputError: inputs that do not fit, or too few of them.
            CaptureError: the model cannot be captured.
        """
        given = Given.read(model, example_inputs, calibration)
        data = None
        if given.batches is not None and isinstance(calibration, Dealt):
            data = Calibration.dealt(given.batches, calibration)
        elif given.batches is not None:
            data = Calibration.cut(given.batches, request.seed, certified)
        if request.leaves_out_rows and given.example is None:
            asked = "repeated_rows" if request.dead_rows is None else f"dead_rows={request.dead_rows!r}"
            raise InputError(f"{asked} is verified on inputs: pass example_inputs= or calibration=")
        others = [] if data is None else [*data.fit, *data.gate, *data.choose, *data.tune]
        shapes, unshaped = request.leaves_out_rows or request.scope in ("auto", "model"), ""
        try:
            captured = capture_call(model, given.form, given.example, shapes, others, shared=True)
        except CaptureError as error:
            if request.scope != "auto" or request.leaves_out_rows:
                raise
            captured = capture_call(model, given.form, given.example, False, others, shared=True)
            unshaped = f"the model cannot be captured with symbolic shapes: {str(error).splitlines()[0]}"
        remember(captured, model, wrapper)
        for number, batch in enumerate(given.batches or []):
            check_sizes(captured, batch, number)
        return Subject(
            captured, captured, Sites((), ()), data, given.example, model_fingerprint(model), unshaped=unshaped
        )

    def selected(self, sites: Selector) -> Subject:
        """Return it with the sites that may be routed."""
        return replace(self, sites=find_sites(self.graph).select(sites))

    def without_rows(self, request: Request) -> Subject:
        """Return it with a graph that leaves out dead and repeated rows, as far as that was asked for."""
        found = self
        if request.dead_rows is not None:
            found = found.on_live_rows(request.dead_rows)
        if request.repeated_rows is not None:
            whole = request.scope == "model" or request.dead_rows is not None  # else rows, also where both are searched
            found = found.on_distinct_rows(request.repeated_rows, whole)
        return found.selected(request.sites)

    def on_distinct_rows(
        self, inputs: Sequence[str], whole: bool, groups: Mapping[str, Sequence[str]] | None = None
    ) -> Subject:
        """Return it with a graph that computes repeated rows once.

        Args:
            inputs: whose rows repeat; none for all.
            whole: only samples that repeat in all inputs, but anywhere in the batch.
            groups: of a plan; by default those of the example.

        Raises:
            InputError: an input that cannot be named, or whose rows are mixed.
        """
        assert self.example is not None
        if whole:
            found = drop_repeated_samples(self.original, self.graph, inputs, self.example)
        else:
            found = drop_repeated_rows(self.original, inputs, self.example, groups)
        if isinstance(found, str):
            return replace(self, repeats=RepeatedRowsPlan(list(inputs), "refused", found))
        graph, report = found
        batches = (
            [self.example]
            if self.data is None
            else [*self.data.fit, *self.data.gate, *self.data.choose, *self.data.tune]
        )
        kept = {name: list(own) for name, own in report.groups.items()}
        regions = list(report.counted(graph, batches))
        plan = RepeatedRowsPlan(list(inputs), "distinct", report.describe(), kept, regions)
        return replace(self, graph=graph, repeats=plan)

    def on_live_rows(self, dead_rows: str) -> Subject:
        """Return it with a graph that computes live rows alone.

        Raises:
            InputError: the mask contract does not hold, or calibration has padding where it does not.
        """
        assert self.example is not None
        live, report = drop_dead_rows(self.original, dead_rows, self.example)
        data = self.data
        if data is not None and not report.takes([*data.fit, *data.gate, *data.choose, *data.tune, *data.test]):
            raise InputError(
                f"dead_rows={dead_rows!r}: the model ignores padding on the {report.side} alone, and calibration holds samples"
                " with padding elsewhere: leave them out"
            )
        share = None if data is None else data.live_share(report.mask)
        dead = DeadRowsPlan(dead_rows, "live", report.describe(share))
        return replace(self, graph=live, dead=dead)

    def on_all_rows(self, reason: str, sites: Selector) -> Subject:
        """Return it with the original graph again, because live or distinct rows alone do not win."""
        dead = None if self.dead is None else replace(self.dead, status="refused", reason=reason)
        repeats = self.repeats
        if repeats is not None and repeats.status == "distinct":
            hint = "" if any(r.repeats for r in repeats.regions) else f"; {NO_REPEATS}"
            repeats = replace(repeats, status="refused", reason=f"{reason}{hint}")
        return replace(self, graph=self.original, dead=dead, repeats=repeats).selected(sites)

    def share(self, site: Site) -> float:
        """Return the share of rows that reach a site in the example, of a site on distinct rows."""
        runs = next((n.meta.get(RUNS) for n in self.graph.graph.nodes if n.name == site.nodes[0]), None)
        regions = [] if self.repeats is None else [r for r in self.repeats.regions if r.inputs == runs]
        return regions[0].distinct / max(regions[0].rows, 1) if regions else 1.0

    @property
    def alone(self) -> str:
        """What the graph is before anything is routed, for a refusal."""
        return f"on {'distinct' if self.dead is None else 'live'} rows alone the model"

    def origin(self, request: Request, sizes: tuple[int, ...]) -> Origin:
        """Return where a plan that is made now holds."""
        data = None if self.data is None else self.data.fingerprint
        return here(self.model, data, request.seed, sizes, request.min_speedup)
