"""Exits of the full models, as light models to search among."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, fx

from dendrofx.errors import InputError
from dendrofx.gates import AlwaysLight
from dendrofx.graph.cuts import Cut
from dendrofx.light.exits import Exit
from dendrofx.machine.progress import progress
from dendrofx.request import Request
from dendrofx.rewriting.exits import Halves
from dendrofx.runtime.model_scores import decision_margin
from dendrofx.search.cascade.exits import FittedExit, cuts_of, fitted_exit
from dendrofx.search.cascade.fulls import FullModel
from dendrofx.search.cascade.lights import LightModel, Rest
from dendrofx.search.cascade.outputs import Sets
from dendrofx.search.cascade.proved import Proved
from dendrofx.search.cascade.search import ORIGINAL
from dendrofx.values.drop_in import graph_level
from dendrofx.values.outputs import flatten

# Cuts that are tried, exits of one full model that are timed, and the work up to an exit from which it saves nothing.
MOST_CUTS, MOST_EXITS, MOST_WORK = 6, 3, 0.9


@dataclass(frozen=True)
class Chain:
    """Two exits in a row.

    Attributes:
        first: the light model of the first, whose rest is not run whole, with its outputs.
        then: what goes on from the first cut to a head at the second, with its outputs.
    """

    first: LightModel
    first_outputs: Sets
    then: LightModel
    outputs: Sets


@dataclass(frozen=True)
class Exits:
    """What was found.

    Attributes:
        lights: single exits, with their outputs; chains: two in a row.
        left: why there is none.
    """

    lights: tuple[tuple[LightModel, Sets], ...] = ()
    chains: tuple[Chain, ...] = ()
    left: str = ""

    @staticmethod
    def of(proved: Proved, request: Request, fulls: Sequence[FullModel]) -> Exits:
        """Fit heads to the full models.

        Raises:
            InputError: the caller named a place where there is no cut.
        """
        subject, named = proved.subject, [after for after in request.exits if after]
        if not request.exits or isinstance(request.gate, AlwaysLight):  # a head for all samples is another model
            return Exits()
        if subject.graph is not subject.original:
            return Exits(left="no exit: between dead or repeated rows no value stands for a sample")
        cuts = cuts_of(subject.original, None if named else MOST_CUTS)
        if unknown := [a for after in named for a in after if a not in {c.after for c in cuts}]:
            there = ", ".join(repr(c.after) for c in cuts) or "no value of it stands for a sample alone"
            raise InputError(f"Exit({unknown[0]!r}): the model cannot be left there; cuts are after {there}")
        wanted = [c for c in cuts if not named or any(c.after in after for after in named)]
        found = Exits()
        try:
            for full in progress(fulls, "fitting exits"):
                found = found.joined(_of_full(proved, full, wanted, named))
        except InputError as error:
            return Exits(left=str(error))
        return (
            found if found.lights or found.chains else Exits(left="no exit: no value of the model stands for a sample")
        )

    def joined(self, other: Exits) -> Exits:
        """Return both."""
        return Exits((*self.lights, *other.lights), (*self.chains, *other.chains))


def _of_full(proved: Proved, full: FullModel, cuts: Sequence[Cut], named: Sequence[tuple[str, ...]]) -> Exits:
    """Return the exits of one full model: few single ones, even in work, and chains of neighbours; or those that are named."""
    made = [
        found for cut in cuts if (found := fitted_exit(proved, full.module, cut)) is not None and found.work < MOST_WORK
    ]
    made = made if named else _best(made)
    by_place = {found.halves.cut.after: found for found in made}
    pairs = [after for after in named if len(after) > 1] if named else list(pairwise(by_place))
    lights = {place: _left_early(proved, full, found) for place, found in by_place.items()}
    chains = [
        Chain(*lights[one], *_then(proved, full, by_place[one], by_place[other].halves.cut))
        for one, other in pairs
        if one in by_place and other in by_place
    ]
    single = [light for place, light in lights.items() if not named or (place,) in named]
    return Exits(tuple(single), tuple(chains))


def _best(made: Sequence[FittedExit]) -> list[FittedExit]:
    """Return of exits with about as much work before them the one whose outputs are closest to the original's."""
    best: dict[int, tuple[float, FittedExit]] = {}
    for found in made:
        part = int(found.work / MOST_WORK * MOST_EXITS)
        if part not in best or found.error < best[part][0]:
            best[part] = (found.error, found)
    return [found for _, (_, found) in sorted(best.items())]


def reaching(first: FittedExit, decision: int) -> Tensor:
    """Return bool[n]: the half of the samples that a first exit is most in doubt about, by the margin of what it gives them.

    At any threshold of use, fewer go on. Of outputs that decide nothing the largest number takes the margin's place.
    """
    margin = decision_margin(first.left_out[decision].float())
    return margin <= margin.median()


def then_of(proved: Proved, full: fx.GraphModule, first: FittedExit, cut: Cut) -> tuple[FittedExit, Halves]:
    """Return a second exit of a full model behind a first one, and the rest of the first, cut there."""
    second = fitted_exit(proved, full, cut, reaching(first, proved.decision))
    assert second is not None  # it was one alone
    return second, Halves.of(first.halves.rest, cut, second.head.work[1])


def _then(proved: Proved, full: FullModel, first: FittedExit, cut: Cut) -> tuple[LightModel, Sets]:
    """Return a second exit behind a first one, with its outputs; its head is fitted on the samples that reach it."""
    second, inner = then_of(proved, full.module, first, cut)
    single, outputs = _left_early(proved, full, second)
    form = Exit((first.halves.cut.after, cut.after))
    rest = Rest(second.halves.first, inner.rest, 1 - second.before)
    work = full.work * (second.work - first.before)
    module = inner.with_head(second.head)
    return replace(single, name=_name(form, full), module=module, work=work, exit=form, rest=rest), outputs


def _left_early(proved: Proved, full: FullModel, fitted: FittedExit) -> tuple[LightModel, Sets]:
    """Return an exit as a light model, with its outputs: of samples that fitted it, what a fit without them gives."""
    gate, search = proved.left_out(fitted.left_out[proved.decision])
    module = fitted.halves.with_head(fitted.head)
    test = torch.cat([flatten(b.call(graph_level(module)))[0][proved.decision] for b in proved.data.test])
    form = Exit((fitted.halves.cut.after,))
    rest = Rest(fitted.halves.first, fitted.halves.rest, 1 - fitted.before)
    light = LightModel(_name(form, full), {}, module, full.work * fitted.work, None, form, rest, full.name)
    return light, Sets(gate, search, test)


def _name(form: Exit, full: FullModel) -> str:
    return str(form) if full.name == ORIGINAL else f"{form} of {full.name}"
