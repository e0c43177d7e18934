"""Exits of the full models, as light models to search among."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx

from dendrofx.errors import InputError
from dendrofx.graph.cuts import Cut
from dendrofx.light.exits import Exit
from dendrofx.machine.progress import progress
from dendrofx.request import Request
from dendrofx.search.cascade.exits import FittedExit, cuts_of, fitted_exit, fixed_outputs
from dendrofx.search.cascade.fulls import FullModel
from dendrofx.search.cascade.lights import LightModel, Rest
from dendrofx.search.cascade.proved import Proved
from dendrofx.search.cascade.search import ORIGINAL, Sets
from dendrofx.values.drop_in import graph_level
from dendrofx.values.outputs import flatten

# Cuts that are tried, exits of one full model that are timed, and the work up to an exit from which it saves nothing.
MOST_CUTS, MOST_EXITS, MOST_WORK = 6, 3, 0.9


def exits(proved: Proved, request: Request, fulls: Sequence[FullModel]) -> tuple[list[tuple[LightModel, Sets]], str]:
    """Return the light models that leave a full model early, with their outputs; or why there is none."""
    if not request.exits:
        return [], ""
    subject = proved.subject
    if subject.graph is not subject.original:
        return [], "no exit: between dead or repeated rows no value stands for a sample"
    named = [after for after in request.exits if after]
    cuts = cuts_of(subject.original, None if named else MOST_CUTS)
    if unknown := [a for after in named for a in after if a not in {c.after for c in cuts}]:
        there = ", ".join(repr(c.after) for c in cuts) or "no value of it stands for a sample alone"
        raise InputError(f"Exit({unknown[0]!r}): the model cannot be left there; cuts are after {there}")
    found: list[tuple[LightModel, Sets]] = []
    try:
        for full in fulls:
            for cut in progress([c for c in cuts if not named or (c.after,) in named], "fitting exits"):
                if (made := exit_of(proved, full.module, cut)) is not None and made.work < MOST_WORK:
                    found.append(_left_early(proved, full, made))
    except InputError as error:
        return [], str(error)
    return _best_exits(found), "" if found else "no exit: no value of the model stands for a sample"


def exit_of(proved: Proved, full: fx.GraphModule, cut: Cut) -> FittedExit | None:
    """Return an exit of a full model, see `fitted_exit`; all samples fit it that test nothing."""
    batches = [*proved.data.fit, *proved.data.gate, *proved.searched]
    original = proved.subject.original
    return fitted_exit(full, original, cut, batches, fixed_outputs(original, batches))


def _left_early(proved: Proved, full: FullModel, fitted: FittedExit) -> tuple[LightModel, Sets]:
    """Return an exit as a light model, with its outputs: of samples that fitted it, what a fit without them gives."""
    gate, search = proved.left_out(fitted.left_out[proved.decision])
    module = fitted.halves.with_head(fitted.head)
    test = torch.cat([flatten(b.call(graph_level(module)))[0][proved.decision] for b in proved.data.test])
    form = Exit((fitted.halves.cut.after,))
    name = str(form) if full.name == ORIGINAL else f"{form} of {full.name}"
    rest = Rest(fitted.halves.first, fitted.halves.rest, 1 - fitted.before)
    light = LightModel(name, {}, module, full.work * fitted.work, None, form, rest, full.name)
    return light, Sets(gate, search, test)


def _best_exits(found: Sequence[tuple[LightModel, Sets]]) -> list[tuple[LightModel, Sets]]:
    """Return the exits to time: of each full model few, even in work."""
    kept = []
    for full in dict.fromkeys(light.of for light, _ in found):
        own = sorted((f for f in found if f[0].of == full), key=lambda f: f[0].work)
        picked = torch.linspace(0, len(own) - 1, min(MOST_EXITS, len(own))).round().long().unique().tolist()
        kept += [own[i] for i in picked]
    return kept
