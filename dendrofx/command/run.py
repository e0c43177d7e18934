"""`dendrofx run`: a saved file on data."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(short_help="Run a file on data.")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="OUT",
    type=click.Path(path_type=Path),
    help="Ends in .npy, .npz, .pt or .safetensors.",
)
@click.option("--batch", type=click.IntRange(1), default=32, show_default=True, metavar="N", help="Samples per call.")
@click.option("--tokenizer", metavar="FOLDER", help="Of the model, for DATA that is text.")
def run(file: Path, data: Path, output: Path, batch: int, tokenizer: str | None) -> None:
    """Run FILE, which transform wrote, on DATA and write its outputs to OUT.

    DATA is read as by transform.
    """
    import torch

    from dendrofx.artifact.load import load
    from dendrofx.command.data import check_output, read_batches, write_outputs
    from dendrofx.command.model import read_tokenizer
    from dendrofx.values.inputs import Inputs

    check_output(output)
    loaded = load(file)
    batches = read_batches(data, batch, None if tokenizer is None else read_tokenizer(Path(tokenizer)))
    with torch.no_grad():
        answers = [Inputs.of(b).call(loaded) for b in batches]
    shapes = write_outputs(output, answers)
    click.echo(f"Wrote {output}: " + ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items()))
