"""A model whose samples are proved not to depend on each other, with its calibration."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor, fx

from dendrofx.errors import InputError
from dendrofx.guarantee.budget import Budget
from dendrofx.rewriting.cascade import finite_inputs
from dendrofx.rows.samples import SampleAnalysis, check_samples
from dendrofx.search.cascade.outputs import Sets, fixed_outputs, picks
from dendrofx.subject import Subject
from dendrofx.values.calibration import Calibration
from dendrofx.values.covered import Covered, covered_by
from dendrofx.values.inputs import Inputs
from dendrofx.values.measure import model_macs


@dataclass(frozen=True)
class Proved:
    """A model whose samples are proved not to depend on each other.

    Attributes:
        subject: its calibration has the inputs marked that all samples share.
        batched: names of the inputs that carry samples; finite: of those whose samples go full where they are not finite.
        covered: the output that the budget is about, of which there is one; decision: its place, which the gate reads.
    """

    subject: Subject
    batched: tuple[str, ...]
    finite: tuple[str, ...]
    covered: Covered
    decision: int

    @staticmethod
    def of(subject: Subject, budget: Budget, seed: int | None) -> Proved:
        """Prove it on the graph, and try it where there is a seed.

        Raises:
            InputError: the model is not proved independent of the batch; names the node.
        """
        analysis = SampleAnalysis(subject.original)
        if refusals := analysis.refusals:
            raise InputError(
                f"scope='model' needs a model whose samples do not depend on each other: {refusals[0]}"
                + (f" (and {len(refusals) - 1} more)" if len(refusals) > 1 else "")
            )
        if not analysis.batched:
            raise InputError("scope='model': no input carries samples on axis 0")
        assert subject.data is not None
        data = subject.data.with_shared(analysis.shared)
        finite = finite_inputs(analysis.batched, data.fit)
        if seed is not None:
            check_samples(subject.original, data.fit[0], seed)
        covered = covered_by(subject.original, data.fit, budget.cover, strict=True)
        decision = budget.single(covered)
        return Proved(replace(subject, data=data), analysis.batched, finite, covered, decision)

    @property
    def data(self) -> Calibration:
        """Its calibration."""
        assert self.subject.data is not None
        return self.subject.data

    @property
    def searched(self) -> list[Inputs]:
        """The samples that cascades are searched on."""
        return [*self.data.choose, *self.data.tune]

    @cached_property
    def untested(self) -> list[Inputs]:
        """The samples that test nothing: of lights, gates and search."""
        return [*self.data.fit, *self.data.gate, *self.searched]

    @cached_property
    def targets(self) -> list[Tensor]:
        """What the original gives for them, [n, ...] by output; see `fixed_outputs`."""
        return fixed_outputs(self.subject.original, self.untested)

    @cached_property
    def macs(self) -> int:
        """The original's multiply-adds for them."""
        return model_macs(self.subject.original, self.untested)

    def left_out(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return those of gate and search samples, of outputs of all samples that test nothing, in order."""
        counts = [sum(b.samples for b in part) for part in (self.data.fit, self.data.gate, self.searched)]
        _, gate, search = outputs.split(counts)
        return gate, search

    def outputs(self, module: fx.GraphModule) -> Sets:
        """Return a model's outputs on the sets that fitted no light branch."""
        return Sets(*(picks(module, b, self.covered) for b in (self.data.gate, self.searched, self.data.test)))
