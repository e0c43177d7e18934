"""`dendrofx verify`: whether a saved file is what was certified."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import fill

import click

from dendrofx.command.ending import Failed, ending
from dendrofx.errors import ArtifactError


@click.command(short_help="Check a file and its certificate.", epilog=ending("verify routed.pt && deploy routed.pt"))
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the certificate as JSON.")
def verify(file: Path, as_json: bool) -> None:
    """Check that FILE is as it was written, and that its certificate is of this file and follows from its figures.

    Exit code 1 where it is not, or holds no certificate.
    """
    from dendrofx.artifact.certificate import certificate
    from dendrofx.artifact.load import load

    try:
        shown = certificate(file)
        load(file)
    except ArtifactError as error:
        raise Failed(str(error)) from error
    click.echo(json.dumps(shown.to_json(), indent=1) if as_json else f"{file} verifies.\n{fill(str(shown), 100)}")
