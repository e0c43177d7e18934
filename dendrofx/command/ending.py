"""How the command ends where it does not end well: one message, and an exit code that a script can act on."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

import click

WIDTH = 98
_HEAD = len("Error: ")


class Unusable(click.ClickException):
    """What cannot be used as given."""

    exit_code = 2

    def format_message(self) -> str:
        """Return the message within the width of a terminal; a path is not broken."""
        head = " " * _HEAD
        return fill(self.message, WIDTH, initial_indent=head, break_long_words=False, break_on_hyphens=False)[_HEAD:]


class Failed(Unusable):
    """What was checked, and does not hold."""

    exit_code = 1


FAULT = 3  # of dendrofx itself
EXIT_CODES = f"""\b
Exit codes:
  0  done
  1  verify: a file was changed, or holds no certificate; transform: the budget could not be shown
  2  something cannot be used as it was given; the message says what to do
  {FAULT}  an error in dendrofx: please report what it printed"""


def ending(*lines: str, terms: Sequence[str] = ()) -> str:
    """Return the end of a help text: what the command's words mean, and how it is called."""
    head = "Example:" if len(lines) == 1 else "Examples:"
    return "\n\n".join([*terms, "\n".join(["\b", head, *(f"  dendrofx {line}" for line in lines)])])
