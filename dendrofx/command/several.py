"""Options that take several numbers."""

from __future__ import annotations

import click


class Several(click.Command):
    """A command whose `--batch` takes several numbers: click's own options take as many as are known before."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read `--batch 1 32` as `--batch 1 --batch 32`."""
        made: list[str] = []
        for argument in args:
            if argument.isdecimal() and made[-2:-1] == ["--batch"]:
                made.append("--batch")
            made.append(argument)
        return super().parse_args(ctx, made)
