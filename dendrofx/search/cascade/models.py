"""The models of a cascade: light ones to search among and full ones, fitted, with their outputs on the other samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dendrofx.errors import InputError
from dendrofx.gates import AlwaysLight
from dendrofx.guarantee.budget import Budget
from dendrofx.machine.progress import progress
from dendrofx.request import Request
from dendrofx.runtime.model_scores import flat_rows
from dendrofx.search.autotune import Tuning
from dendrofx.search.blocks import BlockSpace, batch_sizes
from dendrofx.search.cascade.fulls import FullModel, decisive, full_model
from dendrofx.search.cascade.leaving import Chain, Exits
from dendrofx.search.cascade.lights import LightModel, light_models
from dendrofx.search.cascade.outputs import Sets, picks
from dendrofx.search.cascade.proved import Proved
from dendrofx.search.cascade.routed import fit_routed
from dendrofx.search.explore import explore
from dendrofx.search.explored import Explored
from dendrofx.search.timer import Timer
from dendrofx.subject import Subject
from dendrofx.values.measure import deviation

# Light models of each precision that are timed and searched, of all that the forms make.
MOST_LIGHTS = 6
# Those among which full models are looked for.
MOST_KEPT = 12


@dataclass(frozen=True)
class ModelSpace:
    """The models of a cascade.

    Attributes:
        proved: the original.
        request: what was asked for; budget: what is to be kept.
        sizes: samples per call that the decision is for.
        fulls: the full models to search among, with their outputs: the original, or what the caller named, and light models that
            decide as it does.
        reference: outputs of the original.
        lights: the light models to search among, with their outputs; missing: where there are none, why.
        chains: two exits in a row.
    """

    proved: Proved
    request: Request
    budget: Budget
    sizes: tuple[int, ...]
    fulls: tuple[tuple[FullModel, Sets], ...]
    reference: Sets
    lights: tuple[tuple[LightModel, Sets], ...]
    missing: str
    chains: tuple[Chain, ...] = ()

    @property
    def full(self) -> FullModel:
        """The original, or what the caller named for it."""
        return self.fulls[0][0]

    def full_of(self, name: str) -> FullModel:
        """Return a full model by name."""
        return next(full for full, _ in self.fulls if full.name == name)

    @staticmethod
    @torch.no_grad()
    def fitted(subject: Subject, request: Request, budget: Budget, timer: Timer | None) -> ModelSpace:
        """Fit the models; the test samples are run, and their outputs are looked at by the test alone.

        Raises:
            InputError: the model is not proved independent of the batch, or gives every sample the same output.
        """
        proved = Proved.of(subject, budget, request.seed)
        sizes = batch_sizes(request, proved.subject)
        blocks = _explored(proved, request, sizes)
        full = full_model(proved, request, blocks, timer)
        reference, full_outputs = proved.outputs(subject.original), proved.outputs(full.module)
        if bool((reference.test == reference.test[:1]).all()):
            raise InputError(
                "the original gives every calibration sample the same output: no budget can be shown on them"
            )
        routed, reasons = _routed_lights(proved, request, timer)
        kept = _kept(proved, light_models(blocks), reference.gate)
        fulls = [(full, full_outputs), *decisive(kept, reference, budget, request)]
        exits = Exits.of(proved, request, [f for f, _ in fulls])
        lights = (*_timed(kept, [full.name for full, _ in fulls]), *routed, *exits.lights)
        if request.lights != [] or not reasons:
            reasons.append(f"no light form fits any of its blocks: {_reasons(blocks.explored)}")
        missing = "" if lights or exits.chains else "; ".join([*reasons, *([exits.left] if exits.left else [])])
        return ModelSpace(proved, request, budget, sizes, tuple(fulls), reference, lights, missing, exits.chains)

    def stripped(self) -> ModelSpace:
        """Return it without calibration and outputs: what its settings need to be decided."""
        proved = replace(self.proved, subject=replace(self.proved.subject, data=None))
        none = Sets(*[torch.empty(0)] * 3)
        fulls = tuple((full, none) for full, _ in self.fulls)
        return replace(self, proved=proved, reference=none, fulls=fulls, lights=(), chains=())


def _explored(proved: Proved, request: Request, sizes: tuple[int, ...]) -> BlockSpace:
    """Return the candidates of every site for light models, whose rows are all light."""
    exploring = replace(request, gate=AlwaysLight(), full=None, exact=False)
    explored = explore(proved.subject, exploring, proved.covered)
    return BlockSpace(proved.subject, exploring, proved.covered, explored, Tuning(explored, exploring, sizes))


def _routed_lights(
    proved: Proved, request: Request, timer: Timer | None
) -> tuple[list[tuple[LightModel, Sets]], list[str]]:
    """Return the light models with routed blocks, with their outputs; and of those where nothing is routed, why."""
    found, reasons = [], []
    for form in request.light_models:
        made = fit_routed(form, proved.subject, request, proved.covered, timer)
        if made.branches:
            light = LightModel(str(form), made.branches, made.module, made.work, made.plan)
            found.append((light, proved.outputs(light.module)))
        else:
            why = "; ".join(dict.fromkeys(s.reason for s in made.plan.sites)) or "the model has no blocks"
            reasons.append(f"with {form} no block is routed: {why}")
    return found, reasons


def _kept(proved: Proved, lights: list[LightModel], reference: Tensor) -> list[tuple[LightModel, Sets]]:
    """Return the light models that no other of its precision beats in both work and deviation, with their outputs.

    Counted work does not compare precisions: a narrow product in floats takes less than the conversion of a wide row to 8 bits.
    """
    found: list[tuple[LightModel, float]] = []
    for light in progress(lights[::-1], "trying light models"):
        outputs = picks(light.module, proved.data.gate, proved.covered)
        found.append((light, float(deviation(flat_rows(reference), flat_rows(outputs)).mean())))
    kept: list[LightModel] = []
    for low in (True, False):
        front: list[LightModel] = []
        for light, _ in sorted(found, key=lambda f: (f[1], f[0].work)):
            if light.is_low == low and light.work < (front[-1].work if front else float("inf")):
                front.append(light)
        kept += front[-MOST_KEPT:]
    return [(light, proved.outputs(light.module)) for light in kept]


def _timed(kept: Sequence[tuple[LightModel, Sets]], fulls: Sequence[str]) -> list[tuple[LightModel, Sets]]:
    """Return the cheapest of each precision, and those that may stand for the original: some budgets no other keeps alone."""
    found = [k for low in (True, False) for k in [k for k in kept if k[0].is_low == low][-MOST_LIGHTS:]]
    timed = {light.name for light, _ in found}
    return [*found, *(k for k in kept if k[0].name in fulls and k[0].name not in timed)]


def _reasons(explored: Explored) -> str:
    return "; ".join(dict.fromkeys(r.reason for r in explored.refused.values())) or "it has none"
