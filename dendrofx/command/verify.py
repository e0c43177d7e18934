"""`dendrofx verify`: whether a saved file is what was certified."""

from __future__ import annotations

import json
from pathlib import Path

import click

from dendrofx.command.ending import Failed, ending
from dendrofx.errors import ArtifactError


@click.command(short_help="Check a file and its certificate.", epilog=ending("verify routed.pt && deploy routed.pt"))
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the certificate as JSON.")
def verify(file: Path, as_json: bool) -> None:
    """Check that FILE is as it was written, and that its certificate is of this file and follows from its figures.

    Exit code 0 where all of that holds; 1 where it does not, or where there is no certificate; 2 where there is no such file.
    `dendrofx inspect FILE` asks for no certificate: 0 where FILE is as it was written, else 2.
    """
    from dendrofx.artifact.certificate import certificate
    from dendrofx.artifact.load import load

    try:
        load(file)  # whether it was changed comes before what it holds
        shown = certificate(file)
    except ArtifactError as error:
        raise Failed(str(error)) from error
    click.echo(json.dumps(shown.to_json(), indent=1) if as_json else f"{file} verifies.\n{shown}")
