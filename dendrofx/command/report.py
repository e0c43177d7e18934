"""`dendrofx report`: one offline HTML file about a routed file."""

from __future__ import annotations

from pathlib import Path

import click

from dendrofx.command.several import Several
from dendrofx.errors import InputError

CUT = 64


@click.command(cls=Several, short_help="Write one HTML file about a routed file.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--model", required=True, help="That was transformed, as in transform.")
@click.option("--calibration", required=True, metavar="DATA", type=click.Path(path_type=Path), help="It was fitted on.")
@click.option(
    "--data", required=True, metavar="DATA", type=click.Path(path_type=Path), help="Other rows, to measure on."
)
@click.option("--batch", type=click.IntRange(1), multiple=True, metavar="N", help="As in transform.")
@click.option(
    "-o", "--output", default="report.html", show_default=True, metavar="FILE", type=click.Path(path_type=Path),
    help="The report.",
)  # fmt: skip
def report(file: Path, model: str, calibration: Path, data: Path, batch: tuple[int, ...], output: Path) -> None:
    """Make the module of FILE again from its plan, measure it on DATA, and write what was seen as one HTML file.

    \b
    dendrofx report routed.pt --model mymodels:build --calibration rows.npy --data new.npy

    A TorchScript file holds no gates to look into: they are fitted again from the plan, on the same calibration data.
    """  # noqa: D301
    from dendrofx.artifact.load import load
    from dendrofx.command.data import read_batches
    from dendrofx.command.model import read_model
    from dendrofx.report.write import report as written
    from dendrofx.transform import transform

    plan, size = load(file).plan, max(batch, default=CUT)
    if plan is None:
        raise InputError(f"{file} holds no plan to make its module again: write it with dendrofx transform")
    read = read_model(model)
    made = transform(read.module, calibration=read_batches(calibration, size, read.tokenizer), plan=plan)
    written(made, read_batches(data, size, read.tokenizer), output, model=read.module)
    click.echo(f"Wrote {output}")
