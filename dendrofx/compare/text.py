"""Figures as text: what every table and its foot are written with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tabulate import tabulate


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


def machine_line(threads: int, machine: Mapping[str, str]) -> str:
    """Return threads, machine and versions on one line."""
    return (
        f"{threads} thread{'s' if threads > 1 else ''}; {machine['cpu']}, {machine['cores']} cores,"
        f" {machine['capability']}; torch {machine['torch']}, Python {machine['python']}"
    )
