"""What `transform` is called with: checked before anything is run, and quoted where it cannot be used."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeGuard

from torch import nn

from dendrofx.errors import InputError
from dendrofx.gates import GateForm
from dendrofx.graph.capture import is_routed
from dendrofx.guarantee.budget import Budget
from dendrofx.light import LightForm
from dendrofx.light.routed import Routed
from dendrofx.values.covered import Named, named_outputs


def check_tuning(
    full: object, batch_sizes: object, min_speedup: object, tune_seconds: object
) -> tuple[int, ...] | None:
    """The batch sizes, ascending."""
    if not (full is None or isinstance(full, LightForm | Routed)):
        raise InputError(
            f"full must be a light form such as dendrofx.Prepacked() or dendrofx.Pruned(energy=1.0), got {full!r}"
        )
    if not _number(min_speedup) or not min_speedup > 0:
        raise InputError(f"min_speedup must be a number above 0, got {min_speedup!r}; 1.05 is five percent faster")
    if not _number(tune_seconds) or not tune_seconds >= 0:
        raise InputError(f"tune_seconds must be a number of at least 0, got {tune_seconds!r}")
    if batch_sizes is None:
        return None
    sizes = list(batch_sizes) if isinstance(batch_sizes, Iterable) and not isinstance(batch_sizes, str) else []
    if not sizes or not all(isinstance(b, int) and not isinstance(b, bool) and b >= 1 for b in sizes):
        raise InputError(f"batch_sizes must be whole numbers of at least 1, such as [1, 256], got {batch_sizes!r}")
    return tuple(sorted(set(sizes)))


def check_budget(budget: object, scope: object, max_deviation: object, calibration: object, plan: object) -> None:
    """Raise `InputError` where budget and scope do not go together with the rest."""
    if scope not in ("block", "model"):
        raise InputError(f"scope must be 'block' or 'model', got {scope!r}")
    if budget is not None and not isinstance(budget, Budget):
        raise InputError(f"budget must be a dendrofx.Budget, such as Budget('flip', limit=0.01), got {budget!r}")
    if budget is not None and max_deviation is not None:
        raise InputError("budget= and max_deviation= are two budgets: pass one of them")
    if plan is not None:
        return
    if scope == "model" and budget is None:
        raise InputError("scope='model' needs budget=, such as dendrofx.Budget('flip', limit=0.01)")
    if budget is not None and calibration is None:
        raise InputError(f"budget={budget}: it is shown on calibration samples: pass calibration=")


def split_output(output: object, budget: Budget | None, calibration: object) -> tuple[Named, Budget | None]:
    """What the budget is about, and the budget to certify with the same in it.

    Raises:
        InputError: the two name different outputs, or nothing is measured on them.
    """
    named = named_outputs(output)
    if named is None:
        return None if budget is None else budget.named, budget
    if budget is None:
        return named, None
    if budget.named not in (None, named):
        raise InputError(f"output={output!r}, but the budget is {budget}: name the output in one of them")
    return named, replace(budget, output=named)


def split_forms(
    light: LightForm | Routed | Sequence[LightForm | Routed] | None, full: LightForm | Routed | None, scope: str
) -> tuple[list[LightForm] | None, tuple[Routed, ...], LightForm | None, Routed | None]:
    """Forms of blocks and forms of whole models: light ones, None for the ladder, and the full one of either kind.

    Raises:
        InputError: a form of whole models where blocks are routed.
    """
    given = [] if light is None else [light] if isinstance(light, LightForm | Routed) else list(light)
    models = tuple(f for f in given if isinstance(f, Routed))
    if scope == "block" and (named := [*models, *([full] if isinstance(full, Routed) else [])]):
        raise InputError(
            f"{named[0]} is a model with routed blocks, for the light or full model of scope='model': at scope='block' pass"
            f" max_deviation={named[0].max_deviation:g}"
        )
    blocks = None if light is None else [f for f in given if isinstance(f, LightForm)]
    if isinstance(full, Routed):
        return blocks, models, None, full
    return blocks, models, full, None


def check_dead_rows(dead_rows: object) -> None:
    """Raise `InputError` for what names no mask."""
    named = isinstance(dead_rows, str) and dead_rows.removeprefix("~").isidentifier()
    if dead_rows is not None and not named:
        raise InputError(
            "dead_rows names the mask input, such as 'attention_mask', or '~padding_mask' where ones mark padding,"
            f" got {dead_rows!r}"
        )


def _number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def check(model: nn.Module, max_deviation: object, light: object, gate: object, seed: object) -> None:
    """Raise `InputError` for a model or an option that cannot be used."""
    if is_routed(model):
        raise InputError("the model already holds routed sites: transform the original model")
    if max_deviation is not None and not (_number(max_deviation) and max_deviation >= 0):
        raise InputError(f"max_deviation must be a number of at least 0, got {max_deviation!r}; 0.01 is one percent")
    if max_deviation is not None and max_deviation > 1:
        raise InputError(
            f"max_deviation is {max_deviation:g}, {100 * max_deviation:g} %; it is at most 1: 0.01 is one percent"
        )
    forms = [light] if isinstance(light, LightForm | Routed) else light
    several = isinstance(forms, Sequence) and len(forms) > 0 and all(isinstance(f, LightForm | Routed) for f in forms)
    if light is not None and not several:
        raise InputError(f"light must be a light form such as dendrofx.LowRank(rank=32), or several, got {light!r}")
    if not (gate is None or isinstance(gate, GateForm | nn.Module)):
        raise InputError(f"gate must be a gate form such as dendrofx.LearnedGate(), or a module, got {gate!r}")
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        raise InputError(f"seed must be a whole number from 0 to 2^63 - 1, got {seed!r}")
