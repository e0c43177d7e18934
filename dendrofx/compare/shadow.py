"""A shadow audit: a few samples of production recomputed by the original, beside a transformed module."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from dendrofx.errors import InputError
from dendrofx.guarantee.budget import Budget
from dendrofx.guarantee.losses import losses_of
from dendrofx.rewriting.cascade import cascade_parts, shared_inputs
from dendrofx.rewriting.module import RoutedModule
from dendrofx.rewriting.tolerances import tolerances
from dendrofx.search.cascade.skills import light_outputs
from dendrofx.values.covered import Covered, covered_by
from dendrofx.values.drop_in import graph_level
from dendrofx.values.inputs import Inputs
from dendrofx.values.meta import CALL, RECIPE


@dataclass(frozen=True)
class Shadowed:
    """What a shadow audit saw of one call.

    Attributes:
        losses: of the samples that were picked, f64[picked]; where the budget is about several outputs f64[picked, outputs].
        easy: bool[picked], those that kept what light branches made of them; at block scope any of them may.
        samples: of the call.
    """

    losses: Tensor
    easy: Tensor
    samples: int

    @property
    def picked(self) -> int:
        """How many samples were picked."""
        return len(self.losses)


class Shadow:
    """Recomputes a seeded 1 / `every` of the samples in full, beside the module.

    Args:
        module: what `transform` returned with a budget.
        budget: the same budget.
        every: one sample in that many, on average.
        seed: of the picks; the samples themselves are not looked at. The same seed picks the same places again: give each
            process another.

    Raises:
        InputError: another module, or another budget than the one that it is certified for.

    Example:
        >>> shadow = dendrofx.Shadow(routed, budget, every=100)
        >>> output = routed(**batch)
        >>> losses.append(shadow(batch).losses)
        >>> print(dendrofx.audit(torch.cat(losses), routed.plan.certificate))
    """

    def __init__(self, module: nn.Module, budget: Budget, every: int = 100, seed: int = 0) -> None:
        if not isinstance(every, int) or every < 1:
            raise InputError(f"every must be a whole number of at least 1, got {every!r}")
        self.reference, self.budget, self.every = Reference(module), budget, every
        self.covered: Covered | None = None  # what the first call finds
        self.generator = torch.Generator().manual_seed(seed)
        shown = self.reference.module.plan.certificate
        if shown is not None and (shown.metric, shown.output, shown.alpha) != (
            budget.name,
            budget.named,
            budget.limit,
        ):
            raise InputError(
                f"the module is {shown}, which {budget} is not: pass the budget that it was transformed with"
            )

    @torch.no_grad()
    def __call__(self, batch: Any) -> Shadowed:  # noqa: ANN401  (a batch as users write it)
        """Audit one call's inputs."""
        inputs = self.reference.plain(Inputs.of(batch))
        samples = inputs.samples
        picked = (torch.rand(samples, generator=self.generator) < 1 / self.every).nonzero().squeeze(1)
        if self.covered is None:
            self.covered = covered_by(self.reference.captured, [inputs], self.budget.cover, strict=True)
        if not len(picked):
            none = torch.zeros(0, len(self.covered.places), dtype=torch.float64)
            return Shadowed(_flat(none), torch.zeros(0, dtype=torch.bool), samples)
        few = inputs.take(picked)
        exact = self.covered.pick(self.reference.original(few), len(picked))
        seen = self.covered.pick(self.reference.routed(few), len(picked))
        return Shadowed(_flat(losses_of(self.budget, exact, seen)), self.reference.easy(few), samples)


def _flat(losses: Tensor) -> Tensor:
    """Return f64[picked, outputs]; of one output f64[picked]."""
    return losses[:, 0] if losses.size(1) == 1 else losses


class Reference:
    """What the original model would have computed.

    Args:
        module: what `transform` returned.

    Raises:
        InputError: anything else, or a module that does not keep the original (it was loaded from a file).
    """

    def __init__(self, module: nn.Module) -> None:
        if not isinstance(module, RoutedModule):
            raise InputError(
                f"a shadow audit needs the module that transform returned, which holds the original, got a {type(module).__name__}"
            )
        if module.meta.get(RECIPE) is None:
            raise InputError("the module does not hold the original: audit the one that transform returned")
        self.module, self.captured = module, module.meta[RECIPE].captured
        self.cascade = cascade_parts(module)

    def plain(self, inputs: Inputs) -> Inputs:
        """Inputs as the graph takes them; those that all samples share are not cut."""
        form = self.module.meta.get(CALL)
        plain = inputs if form is None else form.plain(inputs)
        return plain if self.cascade is None else replace(plain, shared=shared_inputs(self.module))

    def routed(self, inputs: Inputs) -> Any:  # noqa: ANN401
        """Return what the module gives, as the graph returns it."""
        return inputs.call(graph_level(self.module))

    def original(self, inputs: Inputs) -> Any:  # noqa: ANN401
        """Return what the original gives, in the same form."""
        return inputs.call(graph_level(self.captured))

    def easy(self, inputs: Inputs) -> Tensor:
        """Return bool[samples]: those that keep what light branches made of them; at block scope any of them may.

        And of a cascade whose full model is light, or leaves early itself.
        """
        if self.cascade is None or not self.module.plan.exact_full:
            return torch.ones(inputs.samples, dtype=torch.bool)
        _, score = light_outputs(self.module, inputs)
        easy: Tensor = score < tolerances(self.module)["model"]
        return easy
