"""Start the command, or say in a line what it needs."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command `dendrofx`; the process ends with its exit code."""
    try:
        import click  # noqa: F401
    except ModuleNotFoundError:
        sys.exit(_without_click())
    from dendrofx.command.group import group

    group(prog_name="dendrofx")


def _without_click() -> int:
    print("dendrofx: the command needs click: pip install 'dendrofx[cli]'", file=sys.stderr)
    return 2
