"""`dendrofx run`: a saved file on data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dendrofx.command.arguments import DATA, FILE, output
from dendrofx.command.ending import ending

if TYPE_CHECKING:
    from dendrofx.artifact.loaded import LoadedModule


@click.command(short_help="Run a file on data.", epilog=ending("run routed.pt new.npy -o answers.npy", terms=[DATA]))
@click.argument("file", type=FILE)
@click.argument("data", type=FILE)
@output("OUT", "Ends in .npy, .npz, .pt or .safetensors.")
@click.option("--batch", type=click.IntRange(1), default=32, show_default=True, metavar="N", help="Samples per call.")
@click.option("--tokenizer", metavar="FOLDER", help="Of the model, for DATA that is text.")
def run(file: Path, data: Path, output: Path, batch: int, tokenizer: str | None) -> None:
    """Run FILE, which transform wrote, on DATA and write its outputs to OUT; text takes --tokenizer."""
    import torch

    from dendrofx.artifact.load import load
    from dendrofx.command.data import check_output, read_batches, write_outputs
    from dendrofx.command.model import read_tokenizer

    check_output(output)
    loaded = load(file)
    batches = read_batches(data, batch, None if tokenizer is None else read_tokenizer(Path(tokenizer)))
    with torch.no_grad():
        answers = [_answer(loaded, b, file, data) for b in batches]
    shapes = write_outputs(output, answers)
    click.echo(f"Wrote {output}: " + ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items()))


def _answer(loaded: LoadedModule, batch: Any, file: Path, data: Path) -> Any:  # noqa: ANN401  (the model's)
    """Return the output for a batch; raise `InputError`, with what the file takes, where the data is something else."""
    import torch

    from dendrofx.errors import InputError
    from dendrofx.graph.show import last_line
    from dendrofx.values.inputs import Inputs

    given = Inputs.of(batch)
    try:
        return given.call(loaded)
    except (InputError, RuntimeError, torch.jit.Error) as error:
        takes = ", ".join(map(str, loaded.inputs))
        raise InputError(
            f"{data} does not fit {file}, which takes {takes}; a batch of the data is {given}: {last_line(error)}."
            " Save the data in the form that the file takes"
        ) from error
