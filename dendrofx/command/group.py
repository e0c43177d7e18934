"""All subcommands, and how errors end: in one message, with an exit code that a script can act on."""

from __future__ import annotations

import warnings
from typing import Any

import click

from dendrofx.command.compare import compare
from dendrofx.command.inspect import inspect
from dendrofx.command.report import report
from dendrofx.command.run import run
from dendrofx.command.transform import transform
from dendrofx.command.verify import verify
from dendrofx.errors import DendrofxError
from dendrofx.version import VERSION

EPILOG = """\b
Exit codes:
  0  done
  1  a file does not verify, or the budget could not be shown
  2  something cannot be used as it was given; the message says what to do
\b
In this order:
  dendrofx transform mymodels:build --calibration rows.npy -o routed.pt
  dendrofx inspect routed.pt
  dendrofx run routed.pt new.npy -o answers.npy
"""


class Unusable(click.ClickException):
    """What cannot be used as given."""

    exit_code = 2


class Group(click.Group):
    """Subcommands whose own errors are told in one message."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401  (click's own)
        """Run a subcommand; what the project refuses, and what the system does, ends with 2."""
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _noted  # type: ignore[assignment]
                return super().invoke(ctx)
        except (DendrofxError, OSError) as error:
            raise Unusable(str(error)) from error


def _noted(message: Warning | str, category: type[Warning], *_: object) -> None:
    """Print a warning of the project's as a note, without the line of code that gave it; those for developers are left out."""
    if not issubclass(category, DeprecationWarning | PendingDeprecationWarning):
        click.echo(f"note: {message}", err=True)


@click.group(
    cls=Group, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(VERSION, prog_name="dendrofx")
def group() -> None:
    """Let easy rows of a trained PyTorch model skip most of its arithmetic, within a budget that is measured."""


for command in (compare, transform, inspect, report, verify, run):
    group.add_command(command)
