"""Figures as text: what every table and its foot are written with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass

from tabulate import tabulate

LEAST_SHOWN = 5e-7  # a deviation below it is rounding


def text_table(rows: Sequence[Sequence[str]], headers: Sequence[str], named: bool = True) -> str:
    """Return lines of cells as they stand, right-aligned; the first one is a name and stands left where `named`."""
    align = ("left",) if named else None
    return tabulate(rows, headers=headers, tablefmt="simple", disable_numparse=True, stralign="right", colalign=align)


def number(value: float | None, form: str = ".3g") -> str:
    """Return a figure as text, `-` where there is none."""
    return "-" if value is None else format(value, form)


def percent(share: float | None, form: str = ".1f") -> str:
    """Return a share of 1 in percent, `-` where there is none."""
    return "-" if share is None else format(100 * share, form)


def deviation(value: float) -> str:
    """Return a deviation in percent, in two digits; what is rounding is called so."""
    return "rounding" if value < LEAST_SHOWN else f"{100 * value:.2g} %"


def short(form: object) -> str:
    """Return a form without what is its default, the first of its arguments without its name: `Pruned(0.997, precision=Int8())`."""
    if not is_dataclass(form):
        return repr(form)
    given = [(f, getattr(form, f.name)) for f in fields(form) if f.init]
    shown = [(i, f.name, v) for i, (f, v) in enumerate(given) if f.default is MISSING or v != f.default]
    words = [short(v) if i == 0 else f"{name}={short(v)}" for i, name, v in shown]
    return f"{type(form).__name__}({', '.join(words)})"


def machine_line(threads: int, machine: Mapping[str, str]) -> str:
    """Return threads, machine and versions on one line."""
    return (
        f"{threads} thread{'s' if threads > 1 else ''}; {machine['cpu']}, {machine['cores']} cores,"
        f" {machine['capability']}; torch {machine['torch']}, Python {machine['python']}"
    )
