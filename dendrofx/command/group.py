"""All subcommands, and how errors end: in one message, with an exit code that a script can act on."""

from __future__ import annotations

import traceback
import warnings
from typing import Any

import click

from dendrofx.command.compare import compare
from dendrofx.command.ending import EXIT_CODES, FAULT, Unusable
from dendrofx.command.inspect import inspect
from dendrofx.command.report import report
from dendrofx.command.run import run
from dendrofx.command.transform import transform
from dendrofx.command.verify import verify
from dendrofx.errors import DendrofxError
from dendrofx.version import VERSION

EPILOG = f"""{EXIT_CODES}
\b
In this order:
  dendrofx transform mymodels:build --calibration rows.npy -o routed.pt
  dendrofx inspect routed.pt
  dendrofx run routed.pt new.npy -o answers.npy
\b
Completion, in ~/.bashrc (zsh, fish: zsh_source, fish_source):
  eval "$(_DENDROFX_COMPLETE=bash_source dendrofx)"
"""


class Group(click.Group):
    """Subcommands whose own errors are told in one message."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401  (click's own)
        """Run a subcommand; what the project refuses, and what the system does, ends with 2, any other error with 3."""
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _noted  # type: ignore[assignment]
                return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click's own ways to end
        except (DendrofxError, OSError) as error:
            raise Unusable(str(error)) from error
        except Exception:
            traceback.print_exc()
            raise SystemExit(FAULT) from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the subcommands in the order in which they are used."""
        return list(self.commands)


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
