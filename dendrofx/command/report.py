"""`dendrofx report`: one offline HTML file about a routed file."""

from __future__ import annotations

from pathlib import Path

import click

from dendrofx.command.arguments import CUT, DATA, FILE, MODEL, batch, data, output
from dendrofx.command.ending import ending
from dendrofx.command.several import Several
from dendrofx.errors import InputError


@click.command(
    cls=Several,
    short_help="Write one HTML file about a routed file.",
    epilog=ending("report routed.pt --model mymodels:build --calibration rows.npy --data new.npy", terms=[MODEL, DATA]),
)
@click.argument("file", type=FILE)
@click.option("--model", required=True, help="That was transformed, as in transform.")
@data("--calibration", "It was fitted on.")
@data("--data", "Other rows, to measure on.")
@batch("As in transform.")
@output("HTML", "The report.", "report.html")
def report(file: Path, model: str, calibration: Path, data: Path, batch: tuple[int, ...], output: Path) -> None:
    """Make the module of FILE again from its plan, measure it on DATA, and write what was seen as one HTML file.

    A TorchScript file holds no gates to look into: they are fitted again from the plan, on the same calibration data.
    """
    from dendrofx.artifact.load import load
    from dendrofx.command.data import read_for
    from dendrofx.command.model import read_model
    from dendrofx.machine.files import check_target
    from dendrofx.report.write import report as written
    from dendrofx.transform import transform

    check_target(output)  # before the work, not after it
    plan, size = load(file).plan, max(batch, default=CUT)
    if plan is None:
        raise InputError(f"{file} holds no plan to make its module again: write it with dendrofx transform")
    read = read_model(model)
    fitted, measured = (read_for(read, path, size) for path in (calibration, data))
    made = transform(read.module, calibration=fitted, plan=plan)
    written(made, measured, output, model=read.module)
    click.echo(f"Wrote {output}")
