"""Accept what 0.5.0 called `transform` with, for one version, with a message. Goes with 0.7.0."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import fields, replace
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from dendrofx.errors import InputError
from dendrofx.request.options import Options

P = ParamSpec("P")
R = TypeVar("R")
RARE = tuple(field.name for field in fields(Options))


def accepts_old_spelling(transform: Callable[P, R]) -> Callable[P, R]:
    """Wrap `transform` so that `max_deviation=` is `budget=`, and the rare options stand in `options=`."""

    @wraps(transform)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        return transform(*args, **renamed(kwargs))

    return called


def renamed(given: dict[str, Any]) -> dict[str, Any]:
    """Return arguments of `transform` in today's spelling.

    Raises:
        InputError: a thing is given in both spellings.
    """
    rare = {name: given[name] for name in RARE if name in given}
    old = [*rare, *(["max_deviation"] if "max_deviation" in given else [])]
    if not old:
        return given
    new = {name: value for name, value in given.items() if name not in old}
    said = []
    if "max_deviation" in given:
        deviation = given["max_deviation"]
        if deviation is not None and new.get("budget") is not None:
            raise InputError("budget= and max_deviation= are two budgets: pass budget= alone")
        if deviation is not None:
            new["budget"] = deviation
        said.append(f"budget={new.get('budget')!r}")
    if rare:
        new["options"] = replace(new.get("options") or Options(), **rare)
        said.append(f"options=dendrofx.Options({', '.join(f'{name}={value!r}' for name, value in rare.items())})")
    warnings.warn(
        f"transform({', '.join(f'{name}=' for name in old)}) is the spelling of 0.5.0 and goes with the next version:"
        f" pass {', '.join(said)}",
        FutureWarning,
        stacklevel=3,
    )
    return new
