"""What a gate is.

A *form* is a frozen configuration, such as `LearnedGate()`. Its `fit` returns the gate: an `nn.Module` that scripts and
gives each row a score, an estimate of

    ||f_light(x) - f_full(x)|| / ||f_full(x)||        of the site's own output row,

from that row alone. A row is hard, and takes the full branch, where `~(score < tolerance)`.

    score 0 .. 1e30    the estimate; tolerance 0 sends every row to full, tolerance infinity every such row to light
    1e30               no estimate: outside the features seen in calibration, or no finite bound
    inf, NaN           the row (or its light output) is not finite, or too far out for float32: full at every tolerance

The controls `AlwaysLight` and `RandomGate` do not look at the row's values and are the exception to the last line.

`margin` is how far, relative to itself, a score may move when the same row is computed in another batch (the last bits of
a matrix product depend on the number of rows). A row keeps its route in any batch unless its score is within that
margin of the tolerance; `forward_counted` counts such rows as `near_rows`.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from dendrofx.errors import InputError
from dendrofx.graph.block import BlockData
from dendrofx.runtime.branches import Int8Chain
from dendrofx.runtime.scores import LightRows
from dendrofx.values.forms import Form

Reads = Literal["input", "light", "evidence", "scales"]


class LightRuns:
    """What a light branch makes of rows that several gates ask about: it runs once for each."""

    def __init__(self, light: nn.Module) -> None:
        self.light = light
        self._known: dict[tuple[int, Reads], tuple[Tensor, LightRows]] = {}

    @staticmethod
    def of(light: nn.Module | LightRuns) -> LightRuns:
        """Wrap a branch, unless it is one that may have run before."""
        return light if isinstance(light, LightRuns) else LightRuns(light)

    @torch.no_grad()
    def read(self, rows: Tensor, reads: Reads) -> LightRows:
        """Return what the branch hands on to a gate that reads this of it."""
        if reads == "light" and isinstance(self.light, Int8Chain):
            reads = "scales"  # which come with the output
        key = (id(rows), reads)
        if key not in self._known:
            self._known[key] = (rows, self._run(rows, reads))  # an id is good for as long as its object lives
        return self._known[key][1]

    def _run(self, rows: Tensor, reads: Reads) -> LightRows:
        if reads == "evidence":
            return LightRows(*self.light.observe(rows))  # type: ignore[operator]
        if reads == "scales":
            return LightRows(*self.light.scales(rows))  # type: ignore[operator]
        out = self.light(rows)
        return LightRows(out, out)


@dataclass(frozen=True)
class SiteRows:
    """What gates are fitted on: a site's rows and how far its light branch is off on them.

    Attributes:
        data: the block and its rows, which fitted no light branch; without data, no rows.
        light: the light branch.
        error: f32[N], relative error of the light branch on those rows, or None without data.
        seen: f32[M, in], further rows that only widen the range of features in which rows are judged.
        ran: of the light branch, where it has run on some rows before.
    """

    data: BlockData
    light: nn.Module
    error: Tensor | None = None
    seen: Tensor | None = None
    ran: LightRuns | None = None

    @cached_property
    def runs(self) -> LightRuns:
        """Return the runs of the light branch."""
        return LightRuns(self.light) if self.ran is None else self.ran

    def ranged(self, read: Callable[[Tensor], Tensor]) -> Tensor:
        """Read all rows that show what range a row's features may have."""
        assert self.data.rows is not None
        own = read(self.data.rows)
        return own if self.seen is None else torch.cat([read(self.seen), own])


@dataclass(frozen=True)
class ModelRows:
    """What gates at model scope are fitted on: samples that fitted no light branch.

    Attributes:
        light: f32[N, ...], the decision output of the light model.
        full: f32[N, ...], of the original.
        losses: f64[N], of the light outputs, in the budget's metric.
        decides: whether the outputs are logits and the budget is about decisions.
    """

    light: Tensor
    full: Tensor
    losses: Tensor
    decides: bool


class GateForm(Form, ABC):
    """Base of the gate forms. Subclasses are frozen dataclasses: their fields are the whole configuration.

    Attributes:
        reads: "input": the gate takes `forward(rows)` and runs before any branch. "light": `forward(rows, light)`, the
            light branch has run on every row. "evidence": the same, and the light branch reports its row norms.
            "scales": the same, and it reports the scales that it quantised its rows with.
        needs_rows: whether `fit` needs calibration rows.

    Example:
        >>> gate: dendrofx.GateForm = dendrofx.LearnedGate()
        >>> routed = dendrofx.transform(model, calibration=batches, gate=gate)
    """

    reads: Reads = "input"
    needs_rows: bool = False
    json_words = "a gate form"

    def fit(self, evidence: SiteRows | ModelRows) -> nn.Module:
        """Build the gate of one site, or of a whole model.

        Raises:
            InputError: there is no such gate for that; rows are needed and missing; or the light branch does not offer what the
                gate reads.
        """
        return self.fit_model(evidence) if isinstance(evidence, ModelRows) else self.fit_site(evidence)

    def fit_site(self, site: SiteRows) -> nn.Module:
        """Build the gate of one site; without it, the form is for whole models alone."""
        raise InputError(f"{self} is a gate of whole models: use it with scope='model'")

    def fit_model(self, rows: ModelRows) -> nn.Module:
        """Build the gate of a model; without it, the form is for blocks alone."""
        raise InputError(
            f"{self} is a gate of blocks: with scope='model' take MarginGate(), LearnedGate() or a module of your own"
        )

    def required(self, site: SiteRows) -> tuple[Tensor, Tensor]:
        """Return the site's rows and errors, or raise an error that asks for them."""
        if site.data.rows is None or site.error is None:
            raise InputError(f"{self} is fitted on calibration rows: pass calibration= to transform")
        return site.data.rows, site.error


def reads_of_light(form: GateForm) -> str:
    """Return what a gate makes the light branch report before it decides: "light", "evidence", "scales", or "plain" for nothing."""
    return "plain" if form.reads == "input" else form.reads
