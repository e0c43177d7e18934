"""Check what `transform` is called with, before anything is run, and quote what cannot be used."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from torch import nn

from dendrofx.errors import InputError
from dendrofx.gates import GateForm
from dendrofx.graph.capture import is_routed
from dendrofx.guarantee.budget import Budget, read_budget
from dendrofx.light import LightForm
from dendrofx.light.exits import Exit
from dendrofx.light.routed_blocks import RoutedBlocks
from dendrofx.plan.plan import Plan
from dendrofx.request.options import Options
from dendrofx.values.covered import Named, named_outputs
from dendrofx.values.numbers import is_number

OPTIONAL = "optional"
ModelForm = RoutedBlocks | Exit


def checked_sizes(batch_sizes: object) -> tuple[int, ...] | None:
    """Return the batch sizes, ascending."""
    if batch_sizes is None:
        return None
    sizes = list(batch_sizes) if isinstance(batch_sizes, Iterable) and not isinstance(batch_sizes, str) else []
    if not sizes or not all(isinstance(b, int) and not isinstance(b, bool) and b >= 1 for b in sizes):
        raise InputError(f"batch_sizes must be whole numbers of at least 1, such as [1, 256], got {batch_sizes!r}")
    return tuple(sorted(set(sizes)))


def split_budget(budget: object) -> tuple[float | None, Budget | None]:
    """Return a budget as a mean deviation and as one to certify: one of them, or with None neither.

    Raises:
        InputError: it is neither a deviation, nor a `Budget` or its text.
    """
    if isinstance(budget, str):
        budget = read_budget(budget)
    if budget is None or isinstance(budget, Budget):
        return None, budget
    if not (is_number(budget) and budget >= 0):
        raise InputError(
            "budget is a mean deviation of at least 0, 0.01 for one percent, or a dendrofx.Budget, or its text"
            f" 'flip:0.01:0.95'; got {budget!r}"
        )
    if budget > 1:
        raise InputError(f"budget={budget:g} is {100 * budget:g} %; it is at most 1: 0.01 is one percent")
    return float(budget), None


def checked_tail(most: object, calibration: object, plan: object) -> float | None:
    """Return what a calibration sample may deviate by; None where any may.

    Raises:
        InputError: no such deviation, or no samples to hold to it.
    """
    if most is None:
        return None
    if not is_number(most) or most <= 0:
        raise InputError(
            f"max_sample_deviation is what any calibration sample may deviate by, above 0: 0.2 is twenty percent; got {most!r}"
        )
    if most > 1:
        raise InputError(f"max_sample_deviation={most:g} is {100 * most:g} %; it is at most 1: 0.2 is twenty percent")
    if plan is None and calibration is None:
        raise InputError(f"max_sample_deviation={most:g}: it is kept on calibration samples: pass calibration=")
    return float(most)


def check_scope(scope: object, budget: Budget | None, calibration: object, plan: object) -> None:
    """Raise `InputError` where scope and budget do not go together with the rest."""
    if scope not in ("auto", "block", "model"):
        raise InputError(f"scope must be 'auto', 'block' or 'model', got {scope!r}")
    if plan is not None:
        return
    if scope == "model" and budget is None:
        raise InputError("scope='model' needs a budget to certify, such as budget=dendrofx.Budget('flip', limit=0.01)")
    if budget is not None and calibration is None:
        raise InputError(f"budget={budget}: it is shown on calibration samples: pass calibration=")


def split_output(output: object, budget: Budget | None, calibration: object) -> tuple[Named, Budget | None]:
    """Return what the budget is about, and the budget to certify with the same in it.

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


@dataclass(frozen=True)
class Forms:
    """The forms that the caller named.

    Attributes:
        lights: of blocks, None for all that are known; light_models: models with routed blocks.
        exits: where light models may leave, each a tuple of places in a row, an empty one for any.
        full: of every full branch; full_model: of a cascade's full model.
    """

    lights: list[LightForm] | None
    light_models: tuple[RoutedBlocks, ...]
    exits: tuple[tuple[str, ...], ...]
    full: LightForm | None
    full_model: RoutedBlocks | None


def split_forms(
    light: LightForm | ModelForm | Sequence[LightForm | ModelForm] | None,
    full: LightForm | RoutedBlocks | None,
    scope: str,
) -> Forms:
    """Return forms of blocks and forms of whole models, apart.

    Raises:
        InputError: a form of whole models where blocks are routed.
    """
    given = [] if light is None else [light] if isinstance(light, LightForm | ModelForm) else list(light)
    models = [f for f in given if isinstance(f, ModelForm)]
    if scope == "block" and (named := [*models, *([full] if isinstance(full, RoutedBlocks) else [])]):
        raise InputError(
            f"{named[0]} is a form of the whole model, for scope='model'"
            + (
                f": at scope='block' pass budget={named[0].max_deviation:g}"
                if isinstance(named[0], RoutedBlocks)
                else ": at scope='block' rows are routed, not samples"
            )
        )
    routed = isinstance(full, RoutedBlocks)
    return Forms(
        None if light is None else [f for f in given if isinstance(f, LightForm)],
        tuple(f for f in models if isinstance(f, RoutedBlocks)),
        ((),) if light is None else tuple(f.after for f in models if isinstance(f, Exit)),
        None if routed else full,  # type: ignore[arg-type]
        full if routed else None,  # type: ignore[arg-type]
    )


def check_dead_rows(dead_rows: object) -> None:
    """Raise `InputError` for what names no mask."""
    named = isinstance(dead_rows, str) and dead_rows.removeprefix("~").isidentifier()
    if dead_rows is not None and not named:
        raise InputError(
            "dead_rows names the mask input, such as 'attention_mask', or '~padding_mask' where ones mark padding,"
            f" got {dead_rows!r}"
        )


def named_inputs(repeated_rows: object) -> tuple[str, ...] | None:
    """Return the names of inputs whose rows repeat, none for all; None where repeated rows are not asked for.

    Raises:
        InputError: neither names nor a truth value.
    """
    if repeated_rows is None or isinstance(repeated_rows, bool):
        return () if repeated_rows else None
    names = [repeated_rows] if isinstance(repeated_rows, str) else repeated_rows
    if not isinstance(names, Sequence) or not names or not all(isinstance(n, str) and n for n in names):
        raise InputError(
            "repeated_rows is True, or names inputs whose rows repeat, such as 'user' or ['user', 'context'], got"
            f" {repeated_rows!r}"
        )
    return tuple(dict.fromkeys(names))


def check_forms(model: nn.Module, light: object, gate: object) -> None:
    """Raise `InputError` for a model, a light form or a gate that cannot be used."""
    if is_routed(model):
        raise InputError("the model already holds routed sites: transform the original model")
    forms = [light] if isinstance(light, LightForm | ModelForm) else light
    several = (
        isinstance(forms, Sequence) and len(forms) > 0 and all(isinstance(f, LightForm | ModelForm) for f in forms)
    )
    if light is not None and not several:
        raise InputError(f"light must be a light form such as dendrofx.LowRank(rank=32), or several, got {light!r}")
    if not (gate is None or gate == OPTIONAL or isinstance(gate, GateForm | nn.Module)):
        raise InputError(
            f"gate must be a gate form such as dendrofx.LearnedGate(), a module, or 'optional', got {gate!r}"
        )


def check_plan(plan: object, options: object) -> None:
    """Raise `InputError` for what is no plan or no options, or where the two do not go together."""
    if not isinstance(options, Options):
        raise InputError(f"options must be dendrofx.Options, such as Options(tune_seconds=0), got {options!r}")
    if options.redecide and plan is None:
        raise InputError("redecide=True decides a plan anew: pass plan=")
    if plan is not None and not isinstance(plan, Plan):
        raise InputError(f"plan must be a dendrofx.Plan, such as Plan.load('plan.json') gives, got {plan!r}")
